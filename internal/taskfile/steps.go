package taskfile

import (
	"strconv"
	"strings"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/yamlstrict"
)

// steps is a list of commands. One without a name is called by its number.
func steps(n *yamlstrict.Node) []berth.Step {
	if n == nil {
		return nil
	}
	items := n.Items()
	if len(items) == 0 {
		n.FailKeyf("there are none; write at least one, such as - run: echo hello")
		return nil
	}
	taken := map[string]bool{}
	var steps []berth.Step
	for i, item := range items {
		f := item.Fields("name", "run", "command", "env", "ignore_failure", "timeout")
		s := berth.Step{
			Name:          "step-" + strconv.Itoa(i+1),
			Run:           f.Get("run").Text(),
			Command:       words(f.Get("command")),
			Env:           env(f.Get("env")),
			IgnoreFailure: f.Get("ignore_failure").Bool(),
			Timeout:       f.Get("timeout").Duration(time.Millisecond, maxTimeout),
		}
		if name := f.Get("name"); name != nil {
			s.Name = checked(name, berth.ValidateName)
			if taken[s.Name] {
				name.Rejectf("an earlier step is called so")
			}
		} else if taken[s.Name] {
			item.FailKeyf("an earlier step is called %s; give this one a name", s.Name)
		}
		taken[s.Name] = true
		switch {
		case f.Has("run") && f.Has("command"):
			f.Get("command").FailKeyf("a step is either run, a script, or command; keep one")
		case f.Has("run") && strings.TrimSpace(s.Run) == "":
			f.Get("run").Failf("the script is empty")
		case f.Has("command") && len(s.Command) == 0:
			f.Get("command").FailKeyf("there is no word; write the program and its arguments")
		case !f.Has("run") && !f.Has("command"):
			item.FailKeyf("does nothing: write run, a script, or command, a list of words")
		}
		if err := s.Validate(); err != nil {
			item.FailKeyf("%v", err)
		}
		steps = append(steps, s)
	}
	return steps
}
