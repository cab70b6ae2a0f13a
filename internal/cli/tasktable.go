package cli

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/berth-run/berth"
)

// taskTable lists tasks, a line each. On a terminal that is too narrow for the
// reasons these are below their tasks; width is nil elsewhere.
func taskTable(w io.Writer, tasks []berth.Task, width func() int) {
	rows := [][]string{{"ID", "NAME", "STATE", "ON", "IMAGE", "EXIT", "AGE", "WHY"}}
	for _, t := range tasks {
		name, exit := "", ""
		if t.Name != nil {
			name = *t.Name
		}
		if t.ExitCode != nil {
			exit = strconv.Itoa(*t.ExitCode)
		}
		image := t.Image
		if width != nil {
			image = shortImage(image)
		}
		rows = append(rows, []string{t.ID, name, string(t.State), t.Infrastructure, image, exit, age(t.CreatedAt), why(&t)})
	}
	if width == nil {
		for _, cells := range rows {
			row(w, cells...)
		}
		return
	}
	narrowTable(w, rows, width())
}

// why is why a task waits, or failed: a task that has ended was told about.
func why(t *berth.Task) string {
	d := t.Diagnosis
	switch {
	case d == nil && t.Waiting() && t.Reason != nil:
		return oneLine(*t.Reason)
	case d == nil || t.State == berth.StateCancelled:
		return ""
	case t.State.Terminal():
		return string(d.Cause)
	}
	return string(d.Cause) + ": " + oneLine(d.Summary)
}

// narrowTable writes rows whose last cell, where it doesn't fit, comes below.
func narrowTable(w io.Writer, rows [][]string, width int) {
	const gap, indent = 2, "    "
	last := len(rows[0]) - 1
	columns := make([]int, last)
	for _, cells := range rows {
		for i := range columns {
			columns[i] = max(columns[i], len([]rune(cells[i])), 1)
		}
	}
	left := 0
	for _, n := range columns {
		left += n + gap
	}
	beside := !slices.ContainsFunc(rows, func(cells []string) bool { return left+len([]rune(cells[last])) > width })
	for n, cells := range rows {
		var line strings.Builder
		below := ""
		for i, cell := range cells[:last] {
			if cell == "" {
				cell = "-"
			}
			fmt.Fprintf(&line, "%-*s", columns[i]+gap, cell)
		}
		switch reason := cells[last]; {
		case beside:
			line.WriteString(reason)
		case n > 0 && reason != "":
			below = wrap(reason, indent, width) + "\n"
		}
		fmt.Fprint(w, trimRight(line.String())+"\n"+below)
	}
}

// shortImage is the last part of an image's name, with a digest cut short.
func shortImage(image string) string {
	name, digest, byDigest := strings.Cut(image, "@sha256:")
	name = name[strings.LastIndex(name, "/")+1:]
	if byDigest {
		name += "@" + digest[:min(len(digest), 8)]
	}
	return name
}
