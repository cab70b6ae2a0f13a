package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"sigs.k8s.io/yaml"
)

// print writes a result as JSON or YAML, or as table does.
func (a *app) print(value any, table func(io.Writer)) error {
	return a.printTo(a.stdout, value, table)
}

// drawn is stdout for a table that has colours of its own, and nothing of a
// cluster that wasn't made clean.
func (a *app) drawn() io.Writer {
	if a.output == "table" {
		return trusted(a.stdout)
	}
	return a.stdout
}

func (a *app) printTo(out io.Writer, value any, table func(io.Writer)) error {
	switch a.output {
	case "json":
		data, err := json.MarshalIndent(value, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(out, "%s\n", data)
		return err
	case "yaml":
		data, err := yaml.Marshal(value)
		if err != nil {
			return err
		}
		_, err = out.Write(data)
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	table(w)
	return w.Flush()
}

// row writes the cells of a table's line.
func row(w io.Writer, cells ...string) {
	for i, cell := range cells {
		if cell == "" {
			cells[i] = "-"
		}
	}
	fmt.Fprintln(w, strings.Join(cells, "\t"))
}

// age is how long ago something was, as people say it.
func age(t time.Time) string {
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// clean keeps what came from elsewhere from steering the terminal.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || !unicode.IsControl(r) {
			return r
		}
		return -1
	}, text)
}

// oneLine is a text for a cell or a live line.
func oneLine(text string) string {
	return strings.Join(strings.Fields(clean(text)), " ")
}

// wrap breaks a text into lines of at most width columns, each behind indent.
func wrap(text, indent string, width int) string {
	var out strings.Builder
	for i, paragraph := range strings.Split(clean(text), "\n") {
		if i > 0 {
			out.WriteString("\n")
		}
		column := 0
		for _, word := range strings.Fields(paragraph) {
			switch {
			case column == 0:
				out.WriteString(indent)
				column = len(indent)
			case column+1+len(word) > width:
				out.WriteString("\n" + indent)
				column = len(indent)
			default:
				out.WriteString(" ")
				column++
			}
			out.WriteString(word)
			column += len(word)
		}
	}
	return out.String()
}

// printLine writes a value as one line of JSON, for what is followed.
func (a *app) printLine(value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "%s\n", data)
	return err
}
