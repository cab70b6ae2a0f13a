package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/yamlstrict"
)

// Edits are made in the text, line by line, so that comments, order and
// spelling of all else stay as people wrote them. The result is read again and
// compared before it replaces the file: an edit that would change anything
// else is refused instead.

var editing sync.Mutex

// Add writes an entry into infra.yml, which it creates (mode 0600) when there
// is none. CodeConflict when the name is taken.
func Add(path string, source berth.InfrastructureSource) error {
	editing.Lock()
	defer editing.Unlock()
	if err := berth.ValidateInfrastructureName(source.Name); err != nil {
		return berth.Errorf(berth.CodeInvalid, "%w", err)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return berth.Errorf(berth.CodeInvalid, "infra.yml: %w", err)
	}
	stored, err := storedPath(path, source.Kubeconfig)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return berth.Errorf(berth.CodeInvalid, "infra.yml can't be read: %w", err)
	}
	before, err := parse(path, data, os.LookupEnv)
	if err != nil {
		return berth.Errorf(berth.CodeOf(err), "nothing was added: %w", err)
	}
	for _, infra := range before.Infrastructures {
		if infra.Name == source.Name {
			return berth.Errorf(berth.CodeConflict, "%s has an infrastructure %s already; choose another name, or take it out with: berth infra remove %s", displayName(path), source.Name, source.Name)
		}
	}
	text, err := inserted(path, string(data), source, stored)
	if err != nil {
		return err
	}
	return replace(path, text, before, func(after *File) bool {
		last := len(after.Infrastructures) - 1
		return last >= 0 && after.Infrastructures[last].Name == source.Name && sameEntries(before.Infrastructures, after.Infrastructures[:last])
	})
}

// Remove takes an entry out of infra.yml. A default: that names it goes with
// it; all else stays as it is, comments above the entry included. CodeNotFound
// when there is no such entry.
func Remove(path, name string) error {
	editing.Lock()
	defer editing.Unlock()
	path, err := filepath.Abs(path)
	if err != nil {
		return berth.Errorf(berth.CodeInvalid, "infra.yml: %w", err)
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return berth.Errorf(berth.CodeNotFound, "there is no %s, and so no infrastructure %s", displayName(path), name)
	}
	if err != nil {
		return berth.Errorf(berth.CodeInvalid, "infra.yml can't be read: %w", err)
	}
	before, err := parse(path, data, os.LookupEnv)
	if err != nil {
		return berth.Errorf(berth.CodeOf(err), "nothing was removed: %w", err)
	}
	rest := without(before.Infrastructures, name)
	if len(rest) == len(before.Infrastructures) {
		return berth.Errorf(berth.CodeNotFound, "there is no infrastructure %s in %s", name, displayName(path))
	}
	text, err := removed(path, string(data), name, before.Default == name)
	if err != nil {
		return err
	}
	return replace(path, text, before, func(after *File) bool { return sameEntries(rest, after.Infrastructures) })
}

func without(list []berth.InfrastructureConfig, name string) []berth.InfrastructureConfig {
	var rest []berth.InfrastructureConfig
	for _, infra := range list {
		if infra.Name != name {
			rest = append(rest, infra)
		}
	}
	return rest
}

func sameEntries(a, b []berth.InfrastructureConfig) bool {
	return len(a) == len(b) && (len(a) == 0 || reflect.DeepEqual(a, b))
}

// replace writes the file if it then says what it should.
func replace(path, text string, before *File, right func(after *File) bool) error {
	after, err := parse(path, []byte(text), os.LookupEnv)
	if err != nil || !right(after) {
		return byHand(path)
	}
	return writeAtomically(path, []byte(text))
}

func byHand(path string) error {
	return berth.Errorf(berth.CodeInvalid, "%s is written in a way that can't be edited safely here; edit it by hand", displayName(path))
}

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

// storedPath is how infra.yml names a kubeconfig: relative when it lies below,
// so that the folder can be moved, absolute otherwise.
func storedPath(infraPath, kubeconfig string) (string, error) {
	if kubeconfig == "" {
		return "", berth.Errorf(berth.CodeInvalid, "no kubeconfig was named; berth infra add NAME --kubeconfig FILE")
	}
	absolute, err := filepath.Abs(kubeconfig)
	if err != nil {
		return "", berth.Errorf(berth.CodeInvalid, "kubeconfig %s: %w", kubeconfig, err)
	}
	info, err := os.Stat(absolute)
	if err != nil {
		return "", berth.Errorf(berth.CodeInvalid, "kubeconfig can't be read: %w", err)
	}
	if !info.Mode().IsRegular() {
		return "", berth.Errorf(berth.CodeInvalid, "kubeconfig %s is not a file", absolute)
	}
	if relative, err := filepath.Rel(filepath.Dir(infraPath), absolute); err == nil && filepath.IsLocal(relative) {
		return "./" + filepath.ToSlash(relative), nil
	}
	return absolute, nil
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
