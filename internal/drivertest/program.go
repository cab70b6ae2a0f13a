package drivertest

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
)

// program tries how a program is started.
func program(t *testing.T, h Harness) {
	tests := []struct {
		name string
		spec berth.TaskSpec
		want string
	}{
		{"arguments are as they are", berth.TaskSpec{Args: []string{"echo", "$(HOME)", "$$", "$HOME", "a b", "*", "", "--x"}}, "$(HOME) $$ $HOME a b *  --x\n"},
		{"values are as they are", berth.TaskSpec{
			Env:  []berth.EnvVar{{Name: "A", Value: "b c"}, {Name: "P", Value: "$(A)"}, {Name: "Q", Value: "$$A"}, {Name: "E", Value: ""}},
			Args: []string{"sh", "-c", `echo "$A|$P|$Q|${E-unset}"`},
		}, "b c|$(A)|$$A|\n"},
		{"an entrypoint takes the place of the image's own", berth.TaskSpec{Entrypoint: []string{"echo", "from"}, Args: []string{"$(entrypoint)"}}, "from $(entrypoint)\n"},
		{"an entrypoint alone leaves the image's command out", berth.TaskSpec{Entrypoint: []string{"sh", "-c", `echo $#`, "name"}}, "0\n"},
		{"a user and a group", berth.TaskSpec{User: "1234:5678", Args: []string{"sh", "-c", "id -u; id -g"}}, "1234\n5678\n"},
		{"a user alone", berth.TaskSpec{User: "1234", Args: []string{"id", "-u"}}, "1234\n"},
		{"no privileges", berth.TaskSpec{Args: []string{"sh", "-c", `grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -s '\t' ' '`}},
			"CapEff: 0000000000000000\nCapBnd: 0000000000000000\nNoNewPrivs: 1\nSeccomp: 2\n"},
		{"no input", berth.TaskSpec{Args: []string{"sh", "-c", "cat; echo end"}}, "end\n"},
		{"no terminal", berth.TaskSpec{Args: []string{"sh", "-c", "test -t 1 || echo none"}}, "none\n"},
		{"its name is its host's", berth.TaskSpec{Args: []string{"sh", "-c", `case $(hostname) in berth-*-1) echo yes;; esac`}}, "yes\n"},
	}
	s := begin(t, h)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := &trial{t, h, s.instance, s.driver, s.sink}
			order := s.order(test.spec)
			s.run(order)
			if diff := cmp.Diff(test.want, s.output(order)); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
		})
	}
}
