package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/berth-run/berth"
)

// messageWidth is the width of a message, in columns: mail is read at 72.
const messageWidth = 72

// engineerMessage is a message to the cluster's engineer, ready to be sent:
// who, what, where and when, what the cluster said, and what is asked of them.
// Of the task it has no arguments and no variables, which may be nobody's business.
func engineerMessage(task *berth.Task, where berth.Infrastructure) string {
	var b strings.Builder
	d := task.Diagnosis
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "  %-11s %s\n", name+":", oneLine(value))
		}
	}
	waits := "failed"
	if !task.State.Terminal() {
		waits = "does not start"
		if task.State == berth.StateRunning {
			waits = "is in trouble"
		}
	} else if task.State == berth.StateLost {
		waits = "was lost"
	}
	at := "in namespace " + where.Namespace
	if where.Namespace == "" {
		at = "on " + task.Infrastructure
	}
	fmt.Fprintf(&b, "Subject: %s: a task %s %s\n\n", d.Cause, oneLine(at), waits)
	fmt.Fprintf(&b, "A task of mine %s %s:\n\n%s\n\n", oneLine(at), waits, wrap(d.Summary, "  ", messageWidth))
	if d.Remedy.Text != "" {
		fmt.Fprintf(&b, "Please:\n\n%s\n\n", wrap(d.Remedy.Text, "  ", messageWidth))
	}
	fmt.Fprintf(&b, "Where and when (times in UTC):\n\n")
	line("cluster", where.Address)
	line("namespace", where.Namespace)
	if task.Pod != nil {
		line("pod", *task.Pod)
	}
	if task.Node != nil {
		line("node", *task.Node)
	}
	line("image", task.Image)
	line("asks for", asked(&task.Spec))
	line("task", fmt.Sprintf("%s, attempt %d, of %s", task.ID, task.Attempt, task.Owner))
	line("submitted", utc(task.CreatedAt))
	line("trouble", "since "+utc(d.Since))
	if task.FinishedAt != nil {
		line("ended", utc(*task.FinishedAt))
	}
	if len(d.Evidence) > 0 {
		fmt.Fprintf(&b, "\nWhat the cluster said, word for word:\n")
		for _, e := range d.Evidence {
			fmt.Fprintf(&b, "\n  %s:\n", oneLine(e.Source))
			for text := range strings.Lines(clean(e.Text)) {
				fmt.Fprintf(&b, "    %s\n", strings.TrimRight(text, "\n"))
			}
		}
	}
	return b.String()
}

// asked is what a task asks for, in words.
func asked(s *berth.TaskSpec) string {
	var parts []string
	say := func(value, of string) {
		if value != "" {
			parts = append(parts, value+" "+of)
		}
	}
	say(string(s.CPU), "CPU")
	say(string(s.Memory), "of memory")
	say(string(s.EphemeralStorage), "of local disk")
	if s.GPU > 0 {
		say(fmt.Sprint(s.GPU), "GPU")
	}
	if s.Timeout > 0 {
		say(s.Timeout.Round(time.Second).String(), "at most")
	}
	if len(parts) == 0 {
		return "nothing in particular"
	}
	return strings.Join(parts, ", ")
}

// quote writes a text with a bar before each line, so that it stands apart.
func quote(w io.Writer, text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintln(w, trimRight("    | "+strings.TrimRight(line, "\n")))
	}
}

func trimRight(line string) string { return strings.TrimRight(line, " ") }
