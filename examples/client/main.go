// Command client is an example of Berth's Go API: it runs a container on the
// infrastructure that infra.yml names, shows its output and ends with its exit
// code.
//
//	go run ./examples/client docker.io/library/busybox:1.35 echo hello
//
// With BERTH_SERVER it uses the Berth server at that address (and the token in
// BERTH_TOKEN) instead of the embedded store.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/client"
)

func main() {
	code, err := run(context.Background(), os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(berth.ExitNone)
	}
	os.Exit(code)
}

func run(ctx context.Context, args []string) (int, error) {
	if len(args) == 0 {
		return 0, fmt.Errorf("usage: client IMAGE [ARG...]")
	}
	service, err := open(ctx)
	if err != nil {
		return 0, err
	}
	defer service.Close()

	task, err := service.SubmitTask(ctx, berth.Submission{Spec: berth.TaskSpec{Image: args[0], Args: args[1:]}})
	if err != nil {
		return 0, err
	}
	for chunk, err := range service.TaskLogs(ctx, task.ID, berth.LogQuery{Follow: true}) {
		if err != nil {
			return 0, err
		}
		if _, err := os.Stdout.Write(chunk.Data); err != nil {
			return 0, err
		}
	}
	for t, err := range service.WatchTask(ctx, task.ID) {
		if err != nil {
			return 0, err
		}
		task = t
	}
	if task.Diagnosis != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", task.Diagnosis.Cause, task.Diagnosis.Summary)
	}
	return task.ProcessExitCode(), nil
}

func open(ctx context.Context) (berth.Service, error) {
	if address := os.Getenv("BERTH_SERVER"); address != "" {
		return client.Dial(address, os.Getenv("BERTH_TOKEN"))
	}
	return client.Open(ctx, client.Config{})
}
