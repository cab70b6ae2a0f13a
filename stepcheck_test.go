package berth

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestStepsAndCallsThatCantRun(t *testing.T) {
	steps := func(steps ...Step) TaskSpec { return TaskSpec{Image: "busybox:1.35", Steps: steps} }
	call := func(c Call) TaskSpec { return TaskSpec{Call: &c} }
	ok := Call{Package: "text", Version: "1.0.0", Function: "split", Arguments: raw("a", "1", "key", `"secret:k"`), Secrets: []string{"key"}}
	for name, tt := range map[string]struct {
		spec TaskSpec
		want string // of the error; empty: it is fine
	}{
		"steps":               {steps(Step{Name: "a", Run: "echo"}, Step{Name: "b", Command: []string{"ls"}, Timeout: time.Second}), ""},
		"a call":              {call(ok), ""},
		"of the newest":       {call(Call{Package: "text", Function: "split"}), ""},
		"steps, no image":     {TaskSpec{Steps: []Step{{Name: "a", Run: "x"}}}, "no image was given"},
		"neither":             {TaskSpec{}, "no image was given"},
		"both":                {TaskSpec{Image: "a", Steps: []Step{{Name: "a", Run: "x"}}, Call: &ok}, "a task is either steps or a call"},
		"args":                {TaskSpec{Image: "a", Args: []string{"x"}, Steps: []Step{{Name: "a", Run: "x"}}}, "entrypoint and args are for a task of one command"},
		"a call's entrypoint": {TaskSpec{Entrypoint: []string{"x"}, Call: &ok}, "entrypoint and args are for a task of one command"},
		"no name":             {steps(Step{Run: "x"}), `step 1: name ""`},
		"nothing to do":       {steps(Step{Name: "a"}), "step 1: a does nothing"},
		"two things":          {steps(Step{Name: "a", Run: "x", Command: []string{"y"}}), "step 1: a has run and command"},
		"an empty word":       {steps(Step{Name: "a", Command: []string{""}}), "step 1: a: the first word of command is empty"},
		"a NUL":               {steps(Step{Name: "a", Run: "x\x00"}), "step 1: a has a NUL byte"},
		"a timeout":           {steps(Step{Name: "a", Run: "x", Timeout: -1}), "step 1: a: timeout -1ns"},
		"a variable":          {steps(Step{Name: "a", Run: "x", Env: []EnvVar{{Name: "a b"}}}), `step 1: a: environment variable "a b"`},
		"twice":               {steps(Step{Name: "a", Run: "x"}, Step{Name: "a", Run: "y"}), `step 2: the name "a" is taken`},
		"too many":            {steps(make([]Step, maxSteps+1)...), "steps: there are 201; at most 200"},
		"too large":           {steps(Step{Name: "a", Run: strings.Repeat("x", maxStepBytes)}), "steps take 524289 bytes; at most 512 KiB"},
		"no package":          {call(Call{Function: "f"}), `package name ""`},
		"no function":         {call(Call{Package: "p"}), `function ""`},
		"a version":           {call(Call{Package: "p", Version: "1", Function: "f"}), `version "1": write a semantic version`},
		"an argument":         {call(Call{Package: "p", Function: "f", Arguments: raw("a", "{")}), `argument "a" is not valid JSON`},
		"a large argument":    {call(Call{Package: "p", Function: "f", Arguments: raw("a", `"`+strings.Repeat("x", MaxArgument)+`"`)}), `argument "a" takes 122882 bytes`},
		"a secret's literal":  {call(Call{Package: "p", Function: "f", Arguments: raw("a", `"hunter2"`), Secrets: []string{"a"}}), `argument "a" is secret and takes a reference`},
		"no such secret":      {call(Call{Package: "p", Function: "f", Arguments: map[string]json.RawMessage{}, Secrets: []string{"a"}}), `the secret "a" is no argument`},
	} {
		err := tt.spec.Validate()
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) || CodeOf(err) != CodeInvalid || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s:\n got %v\nwant %s", name, err, tt.want)
		}
	}
}
