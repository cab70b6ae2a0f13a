package config

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/yamlstrict"
)

// layout is where the list of infrastructures is in the text.
type layout struct {
	list    *yamlstrict.Node // nil: there is none
	entries []yamlstrict.Entry
	other   []yamlstrict.Entry // the other fields at the top
}

func layoutOf(path, text string) (layout, error) {
	doc, err := yamlstrict.Parse(displayName(path), []byte(text))
	if err != nil {
		return layout{}, err
	}
	var l layout
	for _, entry := range doc.Root().Entries() {
		if entry.Key == "infrastructures" || entry.Key == "locations" {
			l.list = entry.Node
			l.entries = entry.Entries()
			continue
		}
		l.other = append(l.other, entry)
	}
	if doc.Root().Flow() || (l.list != nil && l.list.Flow() && len(l.entries) > 0) {
		return l, byHand(path)
	}
	return l, doc.Err()
}

// inserted is the text with an entry after the last one.
func inserted(path, text string, source berth.InfrastructureSource, kubeconfig string) (string, error) {
	l, err := layoutOf(path, text)
	if err != nil {
		return "", err
	}
	lines := splitLines(text)
	if l.list == nil {
		return ending(text) + "infrastructures:\n" + entryText("  ", "  ", source, kubeconfig), nil
	}
	if len(l.entries) == 0 {
		at := l.list.Line() - 1
		key := regexp.MustCompile(`^(\s*(?:infrastructures|locations)\s*:)\s*(?:\{\s*\}|null|~)?\s*(#.*)?$`)
		m := key.FindStringSubmatch(strings.TrimRight(lines[at], "\r\n"))
		if m == nil {
			return "", byHand(path)
		}
		head := m[1]
		if m[2] != "" {
			head += " " + m[2]
		}
		return strings.Join(lines[:at], "") + head + "\n" + entryText("  ", "  ", source, kubeconfig) + strings.Join(lines[at+1:], ""), nil
	}
	last := l.entries[len(l.entries)-1]
	indent := strings.Repeat(" ", last.Column()-1)
	step := "  "
	if fields := last.Entries(); len(fields) > 0 && fields[0].Column() > last.Column() && fields[0].Line() > last.Line() {
		step = strings.Repeat(" ", fields[0].Column()-last.Column())
	}
	end := endOf(lines, last, l.next(last))
	return ending(strings.Join(lines[:end], "")) + entryText(indent, step, source, kubeconfig) + strings.Join(lines[end:], ""), nil
}

// removed is the text without an entry's own lines.
func removed(path, text, name string, isDefault bool) (string, error) {
	l, err := layoutOf(path, text)
	if err != nil {
		return "", err
	}
	lines := splitLines(text)
	drop := make([]bool, len(lines))
	mark := func(entry yamlstrict.Entry) {
		for i := entry.Line() - 1; i < endOf(lines, entry, l.next(entry)); i++ {
			drop[i] = true
		}
	}
	for _, entry := range l.entries {
		if entry.Key == name {
			mark(entry)
		}
	}
	for _, entry := range l.other {
		if entry.Key == "default" && isDefault {
			mark(entry)
		}
	}
	var out strings.Builder
	for i, line := range lines {
		if !drop[i] {
			out.WriteString(line)
		}
	}
	return out.String(), nil
}

// next is the line index of the first key after an entry, or beyond the end.
func (l layout) next(entry yamlstrict.Entry) int {
	next := int(^uint(0) >> 1)
	for _, list := range [][]yamlstrict.Entry{l.entries, l.other} {
		for _, other := range list {
			if other.Line() > entry.Line() {
				next = min(next, other.Line()-1)
			}
		}
	}
	if l.list != nil && l.list.Line() > entry.Line() {
		next = min(next, l.list.Line()-1)
	}
	return next
}

// endOf is the index of the line after an entry's last own one: what is blank
// or a comment at its level or above belongs to what follows.
func endOf(lines []string, entry yamlstrict.Entry, next int) int {
	end := entry.Line()
	for i := entry.Line(); i < min(next, len(lines)); i++ {
		trimmed := strings.TrimSpace(lines[i])
		indent := len(lines[i]) - len(strings.TrimLeft(lines[i], " "))
		if trimmed != "" && (indent >= entry.Column() || !strings.HasPrefix(trimmed, "#")) {
			end = i + 1
		}
	}
	return end
}

func entryText(indent, step string, source berth.InfrastructureSource, kubeconfig string) string {
	var out strings.Builder
	line := func(depth int, text string) {
		fmt.Fprintf(&out, "%s%s%s\n", indent, strings.Repeat(step, depth), text)
	}
	line(0, quote(source.Name)+":")
	if source.Kind == berth.KindDocker {
		line(1, "kind: docker")
		if source.Address != "" {
			line(1, "address: "+quote(source.Address))
		}
		return out.String()
	}
	line(1, "kind: kube")
	if source.Namespace != "" {
		line(1, "namespace: "+quote(source.Namespace))
	}
	line(1, "credentials:")
	line(2, "mechanism: config")
	line(2, "path: "+quote(kubeconfig))
	if source.Context != "" {
		line(2, "context: "+quote(source.Context))
	}
	return out.String()
}

var plain = regexp.MustCompile(`^[A-Za-z./][A-Za-z0-9_./@-]*$`)

// quote writes a string so that YAML and references take it literally.
func quote(text string) string {
	escaped := strings.ReplaceAll(text, "${", "$${")
	switch strings.ToLower(escaped) {
	case "null", "true", "false", "yes", "no", "on", "off", "y", "n", ".inf", ".nan", "...":
	default:
		if _, err := strconv.ParseFloat(escaped, 64); err != nil && plain.MatchString(escaped) {
			return escaped
		}
	}
	return strconv.Quote(escaped)
}

// splitLines keeps the line ends.
func splitLines(text string) []string {
	lines := strings.SplitAfter(text, "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// ending makes sure that a text ends with a line end.
func ending(text string) string {
	if text == "" || strings.HasSuffix(text, "\n") {
		return text
	}
	return text + "\n"
}
