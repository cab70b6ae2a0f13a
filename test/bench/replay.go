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
	var took, resident, text []float64
	for round := range rounds {
		s, err := newServer(binary, kubeconfig, infra)
		if err != nil {
			return err
		}
		seconds, memory, err := replayOnce(ctx, s, program, calls)
		s.close()
		if err != nil {
			return err
		}
		took, resident, text = append(took, seconds), append(resident, memory.resident), append(text, memory.text)
		fmt.Printf("round %d: %.2f s from the start of the process to the end of the run, %.0f MiB at most, %.0f of them pages of the program's file\n", round+1, seconds, memory.resident, memory.text)
	}
	fmt.Printf("replay of %d calls, medians: %.2f s, %.0f MiB at most, %.0f of them pages of the program's file\n", calls, median(took), median(resident), median(text))
	return nil
}

func replayOnce(ctx context.Context, s *server, program string, calls int) (seconds float64, most memory, err error) {
	if _, err := s.service.Infrastructures(ctx); err != nil {
		return 0, most, err
	}
	s.kill()
	id, err := storeRun(ctx, filepath.Join(s.dir, ".berth", "berth.db"), program)
	if err != nil {
		return 0, most, err
	}
	began := time.Now()
	if err := s.start(); err != nil {
		return 0, most, err
	}
	run := berth.Run{}
	for now, err := range s.service.WatchRun(ctx, id) {
		if err != nil {
			return 0, most, err
		}
		run = now
	}
	if run.State != berth.RunSucceeded || string(run.Result) != strconv.Itoa(calls) {
		return 0, most, fmt.Errorf("the run %s: %w, %s", run.State, run.Error, run.Result)
	}
	most, err = mostMemory(s.process.Process.Pid)
	return run.FinishedAt.Sub(began).Seconds(), most, err
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

// memory is what a process has resident, in MiB; text: pages of its program's
// file, which the kernel drops where memory is wanted.
type memory struct{ resident, text float64 }

// mostMemory is the most that a process ever had resident, and how much of what
// it has now is of its file.
func mostMemory(pid int) (memory, error) {
	var m memory
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, err
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		for name, to := range map[string]*float64{"VmHWM:": &m.resident, "RssFile:": &m.text} {
			if len(fields) > 1 && fields[0] == name {
				kib, err := strconv.ParseFloat(fields[1], 64)
				if err != nil {
					return m, err
				}
				*to = kib / 1024
			}
		}
	}
	if m.resident == 0 {
		return m, fmt.Errorf("process %d does not say how much memory it needed", pid)
	}
	return m, nil
}
