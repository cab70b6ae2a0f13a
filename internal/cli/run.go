package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/taskfile"
)

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	var array arrayFlags
	cmd := &cobra.Command{
		Use:   "run [flags] IMAGE [--] [ARG...]",
		Short: "Run a container to its end",
		Long: `Run a container in a namespace, show its output, and end with its exit code.

Words after IMAGE are the container's arguments; the image's ENTRYPOINT stays,
unless --entrypoint replaces it. The first Ctrl-C cancels the task and waits for
its end, the second leaves.` + arrayHelp,
		Example: `  berth run docker.io/library/busybox:1.35 echo hello
  berth run --on site-a --cpu 2 --memory 4Gi --timeout 1h registry.example/tool:1.2 -- --input x
  berth run --detach -f task.yaml
  berth run --array 0-999 registry.example/tool:1.2 -- --seed {index}
  ls *.png | berth run --map-over - registry.example/tool:1.2 -- --input /in/{item}`,
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := f.spec(cmd, args)
			if err != nil {
				return err
			}
			if array.asked(cmd) {
				submission, err := array.submission(cmd.InOrStdin())
				if err != nil {
					return err
				}
				submission.Spec, submission.NoPreflight = spec, f.noPreflight
				if err := submission.Validate(); err != nil {
					return err
				}
				return a.with(cmd, func(ctx context.Context, service berth.Service) error {
					return a.runArray(ctx, service, submission, f.detach)
				})
			}
			return a.with(cmd, func(ctx context.Context, service berth.Service) error {
				return a.run(ctx, service, f.submission(spec), f.detach, attendance{output: a.stdout})
			})
		},
	}
	a.runFlags(cmd, &f)
	array.register(cmd)
	return cmd
}

// runFlags are those that say what a container runs, and where.
func (a *app) runFlags(cmd *cobra.Command, f *runFlags) {
	flags := cmd.Flags()
	flags.SetInterspersed(false)
	a.resourceFlags(cmd, f)
	flags.StringArrayVarP(&f.env, "env", "e", nil, "environment variable K=V, or K to take it from here")
	flags.StringVar(&f.pull, "pull", "", "when to pull the image: missing, always, never (default missing; always for :latest)")
	flags.StringVarP(&f.user, "user", "u", "", "UID or UID:GID to run as")
	flags.StringVar(&f.entrypoint, "entrypoint", "", "command to run in place of the image's ENTRYPOINT")
	flags.StringVarP(&f.file, "file", "f", "", "task.yaml that describes the task; flags override it")
	_ = cmd.RegisterFlagCompletionFunc("pull", cobra.FixedCompletions([]string{"missing", "always", "never"}, cobra.ShellCompDirectiveNoFileComp))
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
	if set := cmd.Flags().Changed; set("user") || set("pull") || set("entrypoint") {
		for flag, value := range map[string]string{"user": f.user, "pull": f.pull} {
			if set(flag) && value == "" {
				return spec, fmt.Errorf("--%s is empty: give it a value, or leave it out", flag)
			}
		}
		if set("user") {
			spec.User = f.user
		}
		if set("pull") {
			spec.Pull = berth.PullPolicy(f.pull)
		}
		if set("entrypoint") {
			if f.entrypoint == "" {
				return spec, fmt.Errorf("--entrypoint is empty: name the command to run in place of the image's own")
			}
			spec.Entrypoint = []string{f.entrypoint}
		}
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
	if err := f.resources(cmd, &spec); err != nil {
		return spec, err
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

func (a *app) run(ctx context.Context, service berth.Service, submission berth.Submission, detach bool, how attendance) error {
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
	task, err := service.SubmitTask(submitCtx, submission)
	close(submitted)
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return exitError(berth.ExitCancelled)
		}
		return a.refused(err)
	}
	if detach {
		if task, err = a.tried(ctx, service, task); err != nil {
			return err
		}
		return a.detached(task)
	}
	return a.attend(ctx, service, task, interrupts, how)
}

// tried waits until the creation of a task's pod was tried. Submitting it waits
// for that too, but not for long.
func (a *app) tried(ctx context.Context, service berth.Service, task berth.Task) (berth.Task, error) {
	if task.State != berth.StateLaunching || task.Diagnosis != nil {
		return task, nil
	}
	for event, err := range service.TaskEvents(ctx, task.ID, 0, true) {
		if err != nil {
			return task, err
		}
		if event.Type != berth.EventQueued && event.Type != berth.EventAdmitted {
			break
		}
	}
	return service.Task(ctx, task.ID)
}

// detached tells what became of a submission that nobody waits for.
func (a *app) detached(task berth.Task) error {
	if a.output != "table" {
		return a.print(task, nil)
	}
	fmt.Fprintln(a.stdout, task.ID)
	switch {
	case task.State.Terminal() && task.State != berth.StateSucceeded:
		fmt.Fprint(a.stderr, ending(task, textWidth(a.stderr)))
		return exitError(task.ProcessExitCode())
	case task.Diagnosis != nil:
		fmt.Fprintln(a.stderr, "berth: "+describe(task))
	}
	fmt.Fprintln(a.stderr, "berth: retries and queued tasks advance while some berth command or server runs; berth task wait "+task.ID)
	return nil
}
