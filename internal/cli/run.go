package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/config"
	"github.com/berth-run/berth/internal/taskfile"
)

// runFlags are the flags of berth run, which override a task file.
type runFlags struct {
	on, name, cpu, memory, storage, user, pull, file string
	entrypoint                                       string
	env, labels                                      []string
	gpu, retries                                     int
	timeout                                          time.Duration
	idempotent, detach                               bool
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [flags] IMAGE [--] [ARG...]",
		Short: "Run a container to its end",
		Long: `Run a container in a namespace, show its output, and end with its exit code.

Words after IMAGE are the container's arguments; the image's ENTRYPOINT stays,
unless --entrypoint replaces it. The first Ctrl-C cancels the task and waits for
its end, the second leaves.`,
		Example: `  berth run docker.io/library/busybox:1.35 echo hello
  berth run --on site-a --cpu 2 --memory 4Gi --timeout 1h registry.example/tool:1.2 -- --input x
  berth run --detach -f task.yaml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := f.spec(cmd, args)
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				return a.run(ctx, service, spec, f.detach)
			})
		},
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false)
	flags.StringVar(&f.on, "on", "", "infrastructure to run on (default: the only one, or default: of infra.yml)")
	flags.StringVar(&f.name, "name", "", "a name for people; need not be unique")
	flags.StringArrayVarP(&f.env, "env", "e", nil, "environment variable K=V, or K to take it from here")
	flags.StringVar(&f.cpu, "cpu", "", "CPUs to request, which is also the limit: 2, 0.5, 500m")
	flags.StringVar(&f.memory, "memory", "", "memory to request, which is also the limit: 512Mi, 2Gi")
	flags.StringVar(&f.storage, "ephemeral-storage", "", "local disk to request, which is also the limit: 10Gi")
	flags.IntVar(&f.gpu, "gpu", 0, "number of GPUs")
	flags.DurationVar(&f.timeout, "timeout", 0, "of an attempt, from its pod's start on its node: 90s, 10m")
	flags.IntVar(&f.retries, "retries", 0, "attempts after the first, where one had started and failed")
	flags.BoolVar(&f.idempotent, "idempotent", false, "running it twice does no harm: retry also when its outcome is unknown")
	flags.StringArrayVarP(&f.labels, "label", "l", nil, "label K=V of the task and its pods")
	flags.StringVar(&f.pull, "pull", "", "when to pull the image: missing, always, never (default missing; always for :latest)")
	flags.StringVarP(&f.user, "user", "u", "", "UID or UID:GID to run as")
	flags.StringVar(&f.entrypoint, "entrypoint", "", "command to run in place of the image's ENTRYPOINT")
	flags.BoolVarP(&f.detach, "detach", "d", false, "print the task's id and return once its pod's creation was tried")
	flags.StringVarP(&f.file, "file", "f", "", "task.yaml that describes the task; flags override it")
	a.outputFlag(cmd)
	_ = cmd.RegisterFlagCompletionFunc("on", a.completeInfrastructures)
	_ = cmd.RegisterFlagCompletionFunc("pull", cobra.FixedCompletions([]string{"missing", "always", "never"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// spec puts a task together from the file, the flags and the arguments.
func (f *runFlags) spec(cmd *cobra.Command, args []string) (berth.TaskSpec, error) {
	var spec berth.TaskSpec
	if f.file != "" {
		var err error
		if spec, err = taskfile.Load(f.file); err != nil {
			return spec, err
		}
	}
	if len(args) > 0 {
		spec.Image = args[0]
		args = args[1:]
		if len(args) > 0 && args[0] == "--" {
			args = args[1:]
		}
		if len(args) > 0 {
			spec.Args = args
		}
	}
	if spec.Image == "" {
		return spec, fmt.Errorf("no image was given: berth run IMAGE [ARG...], such as berth run docker.io/library/busybox:1.35 echo hello")
	}
	set := cmd.Flags().Changed
	text := func(flag, value string, to *string) {
		if set(flag) {
			*to = value
		}
	}
	text("on", f.on, &spec.Infrastructure)
	text("name", f.name, &spec.Name)
	text("cpu", f.cpu, (*string)(&spec.CPU))
	text("memory", f.memory, (*string)(&spec.Memory))
	text("ephemeral-storage", f.storage, (*string)(&spec.EphemeralStorage))
	text("user", f.user, &spec.User)
	text("pull", f.pull, (*string)(&spec.Pull))
	for flag, value := range map[string]string{"name": f.name, "cpu": f.cpu, "memory": f.memory, "user": f.user, "on": f.on, "pull": f.pull, "ephemeral-storage": f.storage} {
		if set(flag) && value == "" {
			return spec, fmt.Errorf("--%s is empty: give it a value, or leave it out", flag)
		}
	}
	if set("gpu") {
		spec.GPU = f.gpu
	}
	if set("timeout") {
		if spec.Timeout = f.timeout; f.timeout == 0 {
			return spec, fmt.Errorf("--timeout 0: use 1s or more, or leave it out for none")
		}
	}
	if set("retries") {
		spec.Retries = f.retries
	}
	if set("idempotent") {
		spec.Idempotent = f.idempotent
	}
	if set("entrypoint") {
		if f.entrypoint == "" {
			return spec, fmt.Errorf("--entrypoint is empty: name the command to run in place of the image's own")
		}
		spec.Entrypoint = []string{f.entrypoint}
	}
	for _, pair := range f.env {
		name, value, found := strings.Cut(pair, "=")
		if !found {
			if value, found = os.LookupEnv(name); !found {
				return spec, fmt.Errorf("--env %s: there is no such variable here; write %s=VALUE", name, name)
			}
		}
		spec.Env = setEnv(spec.Env, name, value)
	}
	for _, pair := range f.labels {
		key, value, found := strings.Cut(pair, "=")
		if !found {
			return spec, fmt.Errorf("--label %s: write KEY=VALUE", pair)
		}
		if spec.Labels == nil {
			spec.Labels = map[string]string{}
		}
		spec.Labels[key] = value
	}
	return spec, spec.Validate()
}

func setEnv(vars []berth.EnvVar, name, value string) []berth.EnvVar {
	for i := range vars {
		if vars[i].Name == name {
			vars[i].Value = value
			return vars
		}
	}
	return append(vars, berth.EnvVar{Name: name, Value: value})
}

func (a *app) completeInfrastructures(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	path, err := config.Locate(a.infra)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	if file, err := config.Load(path); err == nil {
		for _, entry := range file.Infrastructures {
			names = append(names, entry.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) run(ctx context.Context, service berth.Service, spec berth.TaskSpec, detach bool) error {
	interrupts := make(chan os.Signal, 2)
	signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(interrupts)

	submitCtx, stopSubmit := context.WithCancel(ctx)
	defer stopSubmit()
	submitted := make(chan struct{})
	go func() {
		select {
		case s := <-interrupts:
			stopSubmit()
			interrupts <- s
		case <-submitted:
		}
	}()
	task, err := service.SubmitTask(submitCtx, berth.Submission{Spec: spec})
	close(submitted)
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return exitError(berth.ExitCancelled)
		}
		return err
	}
	if detach {
		return a.detached(task)
	}
	return a.attend(ctx, service, task, interrupts)
}

// detached tells what became of a submission that nobody waits for.
func (a *app) detached(task berth.Task) error {
	if a.output != "table" {
		return a.print(task, nil)
	}
	fmt.Fprintln(a.stdout, task.ID)
	switch {
	case task.State.Terminal() && task.State != berth.StateSucceeded:
		fmt.Fprint(a.stderr, ending(task))
		return exitError(task.ProcessExitCode())
	case task.Diagnosis != nil:
		fmt.Fprintln(a.stderr, "berth: "+describe(task))
	}
	fmt.Fprintln(a.stderr, "berth: retries and queued tasks advance while some berth command or server runs; berth task wait "+task.ID)
	return nil
}

// attend shows a task and its output until it has ended.
func (a *app) attend(ctx context.Context, service berth.Service, task berth.Task, interrupts <-chan os.Signal) error {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	view := a.newLive()
	closed := false
	closeView := func() {
		if !closed {
			closed = true
			view.close()
		}
	}
	defer closeView()
	view.show(task)

	logs := make(chan error, 1)
	go func() { logs <- a.copyLogs(ctx, service, task.ID, view) }()
	ended := make(chan error, 1)
	go func() {
		for t, err := range service.WatchTask(ctx, task.ID) {
			if err != nil {
				ended <- err
				return
			}
			task = t
			view.show(t)
		}
		ended <- nil
	}()
	for waiting, cancelled := 2, false; waiting > 0; {
		select {
		case err := <-ended:
			if err != nil {
				return err
			}
			waiting, ended = waiting-1, nil
		case err := <-logs:
			if err != nil {
				view.say("cannot show the output: %s", err)
			}
			waiting, logs = waiting-1, nil
		case <-interrupts:
			if cancelled {
				closeView()
				fmt.Fprintf(a.stderr, "berth: left; the task is being cancelled: berth task wait %s\n", task.ID)
				return exitError(berth.ExitCancelled)
			}
			cancelled = true
			view.say("cancelling task %s; press Ctrl-C again to leave without waiting", task.ID)
			go func() {
				if _, err := service.CancelTask(ctx, task.ID); err != nil && ctx.Err() == nil {
					view.say("cannot cancel: %s", err)
				}
			}()
		}
	}
	closeView()
	if task.State != berth.StateSucceeded {
		fmt.Fprint(a.stderr, ending(task))
	}
	if code := task.ProcessExitCode(); code != 0 {
		return exitError(code)
	}
	return nil
}

// copyLogs writes the output of all attempts, one after the other.
func (a *app) copyLogs(ctx context.Context, service berth.Service, id string, view *live) error {
	for attempt := 1; ; attempt++ {
		for chunk, err := range service.TaskLogs(ctx, id, berth.LogQuery{Attempt: attempt, Follow: true}) {
			switch {
			case berth.CodeOf(err) == berth.CodeNotFound || ctx.Err() != nil:
				return nil // no further attempt
			case err != nil:
				return err
			case chunk.Gap != "":
				view.say("%s", chunk.Gap)
			default:
				if err := view.write(a.stdout, chunk.Data); err != nil {
					return err
				}
			}
		}
	}
}

// ending says on stderr why a task did not succeed.
func ending(task berth.Task) string {
	var out strings.Builder
	fmt.Fprintf(&out, "berth: task %s %s", task.ID, task.State)
	if d := task.Diagnosis; d != nil && task.State != berth.StateCancelled {
		fmt.Fprintf(&out, ": %s\n%s\n", d.Cause, wrap(d.Summary, "  ", 100))
		if d.Remedy.Text != "" {
			fmt.Fprintf(&out, "%s\n", wrap("What to do ("+string(d.Remedy.By)+"): "+d.Remedy.Text, "  ", 100))
		}
		fmt.Fprintf(&out, "  More: berth task explain %s\n", task.ID)
		return out.String()
	}
	out.WriteString("\n")
	return out.String()
}
