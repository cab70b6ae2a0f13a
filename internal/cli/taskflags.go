package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/berth-run/berth"
)

// runFlags are the flags of berth run, which override a task file.
type runFlags struct {
	on, name, cpu, memory, storage, user, pull, file string
	entrypoint                                       string
	env, labels                                      []string
	gpu, retries, priority                           int
	timeout                                          time.Duration
	idempotent, detach, noPreflight                  bool
}

// resourceFlags are the flags of every verb that makes a task.
func (a *app) resourceFlags(cmd *cobra.Command, f *runFlags) {
	flags := cmd.Flags()
	flags.StringVar(&f.on, "on", "", "infrastructure to run on, or labels KEY=VALUE that it has to have (default: default: of infra.yml, or else the one that has room)")
	flags.StringVar(&f.name, "name", "", "a name for people; need not be unique")
	flags.StringVar(&f.cpu, "cpu", "", "CPUs to request, which is also the limit: 2, 0.5, 500m")
	flags.StringVar(&f.memory, "memory", "", "memory to request, which is also the limit: 512Mi, 2Gi")
	flags.StringVar(&f.storage, "ephemeral-storage", "", "local disk to request, which is also the limit: 10Gi")
	flags.IntVar(&f.gpu, "gpu", 0, "number of GPUs")
	flags.DurationVar(&f.timeout, "timeout", 0, "of an attempt, from its pod's start on its node: 90s, 10m")
	flags.IntVar(&f.retries, "retries", 0, "attempts after the first, where one had started and failed")
	flags.IntVar(&f.priority, "priority", 0, "among your own tasks that wait to be let through; greater ones go first (-1000 to 1000)")
	flags.BoolVar(&f.idempotent, "idempotent", false, "running it twice does no harm: retry also when its outcome is unknown")
	flags.StringArrayVarP(&f.labels, "label", "l", nil, "label K=V of the task and its pods")
	flags.BoolVarP(&f.detach, "detach", "d", false, "print the task's id and return once its pod's creation was tried")
	flags.BoolVar(&f.noPreflight, "no-preflight", false, "submit without asking the cluster before whether it would take the task")
	a.outputFlag(cmd)
	a.rawFlag(cmd)
	_ = cmd.RegisterFlagCompletionFunc("on", a.completeInfrastructures)
}

// resources takes over what resourceFlags say.
func (f *runFlags) resources(cmd *cobra.Command, spec *berth.TaskSpec) error {
	set := cmd.Flags().Changed
	text := func(flag, value string, to *string) {
		if set(flag) {
			*to = value
		}
	}
	if set("on") {
		var err error
		if spec.Infrastructure, spec.Where, err = berth.ParseOn(f.on); err != nil {
			return err
		}
	}
	text("name", f.name, &spec.Name)
	text("cpu", f.cpu, (*string)(&spec.CPU))
	text("memory", f.memory, (*string)(&spec.Memory))
	text("ephemeral-storage", f.storage, (*string)(&spec.EphemeralStorage))
	for flag, value := range map[string]string{"name": f.name, "cpu": f.cpu, "memory": f.memory, "on": f.on, "ephemeral-storage": f.storage} {
		if set(flag) && value == "" {
			return fmt.Errorf("--%s is empty: give it a value, or leave it out", flag)
		}
	}
	if set("gpu") {
		spec.GPU = f.gpu
	}
	if set("timeout") {
		if spec.Timeout = f.timeout; f.timeout == 0 {
			return fmt.Errorf("--timeout 0: use 1s or more, or leave it out for none")
		}
	}
	if set("retries") {
		spec.Retries = f.retries
	}
	if set("priority") {
		spec.Priority = f.priority
	}
	if set("idempotent") {
		spec.Idempotent = f.idempotent
	}
	for _, pair := range f.labels {
		key, value, found := strings.Cut(pair, "=")
		if !found {
			return fmt.Errorf("--label %s: write KEY=VALUE", pair)
		}
		if spec.Labels == nil {
			spec.Labels = map[string]string{}
		}
		spec.Labels[key] = value
	}
	return nil
}

// submission is what is sent for a spec.
func (f *runFlags) submission(spec berth.TaskSpec) berth.Submission {
	return berth.Submission{Spec: spec, NoPreflight: f.noPreflight}
}
