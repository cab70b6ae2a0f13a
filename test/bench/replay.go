package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/store"
	"github.com/berth-run/berth/internal/workflow"
)

// replay measures how long a server takes to go on with a run of many calls that
// have all ended, from the start of its process to the end of the run, and how
// much memory it needs at most.
func replay(ctx context.Context, kubeconfig, binary string, calls, rounds int) error {
	program := fmt.Sprintf("def main():\n    return len([r[\"output\"] for r in run.map(image = %q, args = [[\"echo\", str(i)] for i in range(%d)])])\n", image, calls)
	infra := "infrastructures:\n  bench:\n    kind: kube\n    namespace: default\n    credentials: {mechanism: config, path: ./kubeconfig}\n"
	var took, most []float64
	for round := range rounds {
		s, err := newServer(binary, kubeconfig, infra)
		if err != nil {
			return err
		}
		seconds, mib, err := replayOnce(ctx, s, program, calls)
		s.close()
		if err != nil {
			return err
		}
		took, most = append(took, seconds), append(most, mib)
		fmt.Printf("round %d: %.2f s from the start of the process to the end of the run, %.0f MiB at most\n", round+1, seconds, mib)
	}
	fmt.Printf("replay of %d calls, medians: %.2f s, %.0f MiB at most\n", calls, median(took), median(most))
	return nil
}

func replayOnce(ctx context.Context, s *server, program string, calls int) (seconds, mib float64, err error) {
	if _, err := s.service.Infrastructures(ctx); err != nil {
		return 0, 0, err
	}
	s.kill()
	id, err := storeRun(ctx, filepath.Join(s.dir, ".berth", "berth.db"), program)
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if err := s.start(); err != nil {
		return 0, 0, err
	}
	run := berth.Run{}
	for now, err := range s.service.WatchRun(ctx, id) {
		if err != nil {
			return 0, 0, err
		}
		run = now
	}
	if run.State != berth.RunSucceeded || string(run.Result) != strconv.Itoa(calls) {
		return 0, 0, fmt.Errorf("the run %s: %w, %s", run.State, run.Error, run.Result)
	}
	mib, err = mostMemory(s.process.Process.Pid)
	return run.FinishedAt.Sub(began).Seconds(), mib, err
}

// storeRun stores a run as it stands when its last call has just ended.
func storeRun(ctx context.Context, path, program string) (id string, err error) {
	st, err := store.Open(ctx, path)
	if err != nil {
		return "", err
	}
	defer st.Close()
	source := berth.WorkflowSource{Main: "bench.star", Files: map[string][]byte{"bench.star": []byte(program)}}
	loaded, err := workflow.Load(workflow.Files(source.Files), source.Main)
	if err != nil {
		return "", err
	}
	done := &ended{}
	if _, err := (&workflow.Runner{Program: loaded, Host: done}).Run(ctx); err != nil {
		return "", err
	}
	record := &berth.RunRecord{Key: "bench", Caller: berth.Caller{Name: "bench", Role: berth.RoleAdmin}, Source: source, Run: berth.Run{
		ID: berth.NewRunID("bench"), State: berth.RunRunning, Infrastructure: "bench", OnError: berth.OnErrorFinish, Workflow: source.Main, Packages: []berth.RunPackage{}, CreatedAt: time.Now().UTC(), Owner: "bench",
	}}
	if err := st.PutRun(ctx, berth.Lease{}, record); err != nil {
		return "", err
	}
	return record.Run.ID, st.CommitRun(ctx, berth.Lease{}, record.Run.ID, nil, done.calls)
}

// ended is a host whose calls end at once, and are noted as they are stored.
type ended struct {
	mu    sync.Mutex
	calls []berth.RunCall
}

func (e *ended) Do(_ context.Context, c workflow.Call) (json.RawMessage, *berth.CallFailure, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now().UTC()
	task, infrastructure := fmt.Sprintf("d%019d", len(e.calls)), "bench"
	value := json.RawMessage(fmt.Sprintf(`{"output":"what call %d printed\n","truncated":false,"incomplete":false,"exit_code":0,"started_at":%q,"finished_at":%q,"task":%q}`, len(e.calls), now.Format(time.RFC3339Nano), now.Format(time.RFC3339Nano), task))
	e.calls = append(e.calls, berth.RunCall{
		Seq: int64(len(e.calls) + 1), Key: c.Key, Kind: string(c.Kind), Name: c.Name, At: c.At, State: berth.CallSucceeded, Task: &task, Infrastructure: &infrastructure,
		BeganAt: now, EndedAt: &now, Needs: []string{}, Result: value, Digest: c.Digest,
	})
	return value, nil, nil
}

// mostMemory is the most that a process ever had in memory, in MiB.
func mostMemory(pid int) (float64, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if text, is := strings.CutPrefix(lines.Text(), "VmHWM:"); is {
			kib, err := strconv.ParseFloat(strings.Fields(text)[0], 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("process %d does not say how much memory it needed", pid)
}
