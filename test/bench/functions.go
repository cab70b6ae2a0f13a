package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/client"
)

// functions measures calls of a function on a real kubelet through a berth
// server: how soon after the program's end its result is back, with callbacks
// and without, what a server needs for many at once, and how long a build takes.
func functions(ctx context.Context, kubeconfig, binary, base string, runs, atOnce int) error {
	o, err := newOffice(ctx, kubeconfig, binary)
	if err != nil {
		return err
	}
	defer o.close()
	if err := o.buildTimes(base); err != nil {
		return err
	}
	for _, on := range []string{"with-callbacks", "without-callbacks"} {
		var delays []time.Duration
		for i := range runs + 1 {
			delay, err := o.resultDelay(ctx, on, "0.2")
			if err != nil {
				return err
			}
			if i > 0 { // the first pulls the image
				delays = append(delays, delay)
			}
		}
		fmt.Printf("result after the program's exit, %s: median %s, p90 %s (%d runs)\n", on, percentile(delays, 0.5).Round(100*time.Microsecond), percentile(delays, 0.9).Round(100*time.Microsecond), len(delays))
	}
	fmt.Printf("the server's memory so far was %.0f MB at most\n", o.peak())
	return o.many(ctx, atOnce)
}

// office is a server with a package, on the namespace of a restricted kubeconfig.
type office struct {
	binary, dir, address string
	server               *exec.Cmd
	service              berth.Service
	trust                string
}

func newOffice(ctx context.Context, kubeconfig, binary string) (*office, error) {
	dir, err := os.MkdirTemp("", "berth-bench-functions-*")
	if err != nil {
		return nil, err
	}
	if binary, err = filepath.Abs(binary); err != nil {
		return nil, err
	}
	state := filepath.Dir(kubeconfig)
	host, err := os.ReadFile(filepath.Join(state, "host-ip"))
	if err != nil {
		return nil, fmt.Errorf("the cluster has to be one of localkube: %w", err)
	}
	l, err := net.Listen("tcp", strings.TrimSpace(string(host))+":0")
	if err != nil {
		return nil, err
	}
	o := &office{binary: binary, dir: dir, address: l.Addr().String()}
	l.Close()
	kubeconfig, err = filepath.Abs(kubeconfig)
	if err != nil {
		return nil, err
	}
	if err := o.run("KUBECONFIG="+kubeconfig, "create-kubeconfig", "--namespace", "bench-functions", "-o", "kubeconfig", "--profile", "functions"); err != nil {
		return nil, err
	}
	entry := "    kind: kube\n    namespace: bench-functions\n    credentials: {mechanism: config, path: ./kubeconfig}\n    registry: " + o.address + "\n"
	infra := "default: with-callbacks\ninfrastructures:\n  with-callbacks:\n" + entry + "    callback_to: " + o.address + "\n  without-callbacks:\n" + entry
	if err := os.WriteFile(filepath.Join(dir, "infra.yml"), []byte(infra), 0o600); err != nil {
		return nil, err
	}
	o.server = exec.Command(binary, "server", "--listen", o.address)
	o.server.Dir, o.server.Stderr = dir, os.Stderr
	if err := o.server.Start(); err != nil {
		return nil, err
	}
	ca := filepath.Join(dir, ".berth", "ca.pem")
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(ca); err == nil {
			break
		}
		if time.Now().After(deadline) {
			o.close()
			return nil, fmt.Errorf("the server did not start")
		}
	}
	o.trust = filepath.Join(state, "certs.d", o.address)
	if err := os.MkdirAll(o.trust, 0o755); err != nil {
		return nil, err
	}
	hosts := fmt.Sprintf("server = %q\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = %q\n", "https://"+o.address, "https://"+o.address, ca)
	if err := os.WriteFile(filepath.Join(o.trust, "hosts.toml"), []byte(hosts), 0o644); err != nil {
		return nil, err
	}
	token, err := o.output("server", "token", "create", "bench", "--role", "admin")
	if err != nil {
		return nil, err
	}
	o.service, err = client.Dial("https://"+o.address, strings.TrimSpace(token), client.WithCAFile(ca))
	return o, err
}

func (o *office) close() {
	if o.service != nil {
		o.service.Close()
	}
	if o.server != nil {
		_ = o.server.Process.Signal(syscall.SIGTERM)
		_ = o.server.Wait()
	}
	if o.trust != "" {
		os.RemoveAll(o.trust)
	}
	os.RemoveAll(o.dir)
}

func (o *office) run(env string, args ...string) error {
	cmd := exec.Command(o.binary, args...)
	cmd.Dir, cmd.Env = o.dir, append(os.Environ(), env)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("berth %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (o *office) output(args ...string) (string, error) {
	cmd := exec.Command(o.binary, args...)
	cmd.Dir = o.dir
	out, err := cmd.Output()
	return string(out), err
}

// buildTimes builds a package with 5 MB of files, warm.
func (o *office) buildTimes(base string) error {
	dir := filepath.Join(o.dir, "clock")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data := make([]byte, 5_000_000)
	_, _ = rand.Read(data)
	for name, text := range map[string]string{
		"run.sh":        "#!/bin/bash\nsleep $SECONDS_TO_RUN\necho \"at: $(date +%s%N)\"\n",
		"data.bin":      string(data),
		"container.yml": "name: clock\nversion: 1.0.0\nkind: ecu\nfiles: [run.sh, data.bin]\nentrypoint: {kind: task, exec: run.sh}\nactions:\n  now:\n    input: [{name: seconds_to_run, type: string}]\n    output: [{name: at, type: integer}]\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			return err
		}
	}
	// The base is in the registry, as a second package upon it would find it.
	var times []time.Duration
	for i := range 6 {
		began := time.Now()
		if err := o.run("", "package", "build", dir, "--base", base, "--builder", "layers"); err != nil {
			return err
		}
		if i > 0 {
			times = append(times, time.Since(began))
		}
	}
	fmt.Printf("daemonless build of a package of 5 MB, warm: median %s, slowest %s\n", percentile(times, 0.5).Round(time.Millisecond), percentile(times, 1).Round(time.Millisecond))
	return nil
}

// resultDelay calls the function that tells the time of its end, and returns
// how much later its result was here.
func (o *office) resultDelay(ctx context.Context, on, seconds string) (time.Duration, error) {
	argument, _ := json.Marshal(seconds)
	task, err := o.service.SubmitTask(ctx, berth.Submission{Spec: berth.TaskSpec{
		Infrastructure: on, Call: &berth.Call{Package: "clock", Function: "now", Arguments: map[string]json.RawMessage{"seconds_to_run": argument}},
	}})
	if err != nil {
		return 0, err
	}
	for t, err := range o.service.WatchTask(ctx, task.ID) {
		if err != nil {
			return 0, err
		}
		task = t
	}
	now := time.Now()
	if task.State != berth.StateSucceeded {
		return 0, fmt.Errorf("the function ended as %s: %+v", task.State, task.Diagnosis)
	}
	at, err := strconv.ParseInt(string(task.Result), 10, 64)
	return now.Sub(time.Unix(0, at)), err
}

// many runs functions at once and tells what the server needed at most.
func (o *office) many(ctx context.Context, count int) error {
	// What builds and pushes took before is another matter: the peak begins anew.
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", o.server.Process.Pid), []byte("5"), 0); err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make(chan error, count)
	began := time.Now()
	for range count {
		wg.Go(func() {
			_, err := o.resultDelay(ctx, "with-callbacks", "90")
			errs <- err
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	fmt.Printf("%d functions at once with callbacks, %s: the server's memory was %.0f MB at most\n", count, time.Since(began).Round(time.Second), o.peak())
	return nil
}

// peak is the most memory that the server had, in MB; -1 where that isn't known.
func (o *office) peak() float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", o.server.Process.Pid))
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(status)) {
		if kib, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			if n, err := strconv.Atoi(strings.Fields(kib)[0]); err == nil {
				return float64(n) * 1024 / 1e6
			}
		}
	}
	return -1
}
