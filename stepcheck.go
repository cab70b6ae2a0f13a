package berth

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	maxSteps     = 200
	maxStepBytes = 512 << 10 // of all steps together: they travel inside the pod's own description
)

// validateAgent checks what the agent is to run.
func (s *TaskSpec) validateAgent() error {
	if !s.Agent() {
		return nil
	}
	if len(s.Steps) > 0 && s.Call != nil {
		return fmt.Errorf("a task is either steps or a call of a function, not both")
	}
	if len(s.Entrypoint) > 0 || len(s.Args) > 0 {
		return fmt.Errorf("entrypoint and args are for a task of one command; this one has steps or calls a function")
	}
	if s.Call != nil {
		return s.Call.validate()
	}
	if len(s.Steps) > maxSteps {
		return fmt.Errorf("steps: there are %d; at most %d are possible", len(s.Steps), maxSteps)
	}
	seen := map[string]bool{}
	size := 0
	for i := range s.Steps {
		step := &s.Steps[i]
		if err := step.Validate(); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
		if seen[step.Name] {
			return fmt.Errorf("step %d: the name %q is taken by an earlier step", i+1, step.Name)
		}
		seen[step.Name] = true
		size += step.size()
	}
	if size > maxStepBytes {
		return fmt.Errorf("steps take %d bytes; at most %d KiB fit into a pod: put long scripts into the image", size, maxStepBytes>>10)
	}
	return nil
}

// Validate reports the first thing that is wrong with the step, or nil.
func (s *Step) Validate() error {
	if err := ValidateName(s.Name); err != nil {
		return err
	}
	switch {
	case s.Run == "" && len(s.Command) == 0:
		return fmt.Errorf("%s does nothing: write run, a script, or command, a list of words", s.Name)
	case s.Run != "" && len(s.Command) > 0:
		return fmt.Errorf("%s has run and command; keep one", s.Name)
	case len(s.Command) > 0 && s.Command[0] == "":
		return fmt.Errorf("%s: the first word of command is empty; it names the program", s.Name)
	case strings.ContainsRune(s.Run, 0) || slices.ContainsFunc(s.Command, func(word string) bool { return strings.ContainsRune(word, 0) }):
		return fmt.Errorf("%s has a NUL byte", s.Name)
	case s.Timeout < 0 || (s.Timeout > 0 && s.Timeout < time.Millisecond):
		return fmt.Errorf("%s: timeout %s: use 1ms or more", s.Name, s.Timeout)
	}
	for _, env := range s.Env {
		if err := env.validate(); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	return nil
}

func (s *Step) size() int {
	size := len(s.Name) + len(s.Run)
	for _, word := range s.Command {
		size += len(word)
	}
	for _, env := range s.Env {
		size += len(env.Name) + len(env.Value)
	}
	return size
}

// validate checks what can be known without the package: its own arguments are
// for [Package.Arguments].
func (c *Call) validate() error {
	if err := ValidatePackageName(c.Package); err != nil {
		return err
	}
	if c.Version != "" {
		if err := ValidatePackageVersion(c.Version); err != nil {
			return err
		}
	}
	if err := ValidateFunctionName(c.Function); err != nil {
		return err
	}
	size := 0
	for _, name := range sortedKeys(c.Arguments) {
		value := c.Arguments[name]
		if !json.Valid(value) {
			return fmt.Errorf("argument %s is not valid JSON", show(name))
		}
		if len(value) > MaxArgument {
			return fmt.Errorf("argument %s takes %d bytes; at most %d KiB are possible: put large data into files", show(name), len(value), MaxArgument>>10)
		}
		if size += len(value); size > MaxArguments {
			return fmt.Errorf("argument %s: all arguments together take more than %d KiB: put large data into files", show(name), MaxArguments>>10)
		}
	}
	for _, name := range c.Secrets {
		if _, ok := c.Arguments[name]; !ok {
			return fmt.Errorf("the secret %s is no argument of the call", show(name))
		}
		if _, err := secretReference(name, c.Arguments[name]); err != nil {
			return err
		}
	}
	return nil
}
