// Package taskfile reads task.yaml, a task written down instead of typed as
// flags. Text comes in, a berth.TaskSpec goes out; what it doesn't know is an
// error with line and column. It resolves no references and runs nothing.
package taskfile

import (
	"errors"
	"io"
	"math"
	"os"
	"strings"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/yamlstrict"
)

// maxTimeout bounds a timeout; longer is a mistake of units.
const maxTimeout = 10 * 365 * 24 * time.Hour

// Load reads a task.yaml; "-" is standard input. The image may be missing: the
// command line can name it. All errors are CodeInvalid.
func Load(path string) (berth.TaskSpec, error) {
	name, data, err := read(path)
	if err != nil {
		return berth.TaskSpec{}, berth.Errorf(berth.CodeInvalid, "task file: %w", err)
	}
	return Parse(name, data)
}

func read(path string) (name string, data []byte, err error) {
	if path == "-" {
		data, err = io.ReadAll(os.Stdin)
		return "standard input", data, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return path, nil, err
	}
	if info.IsDir() {
		return path, nil, errors.New(path + " is a folder; name the file itself")
	}
	data, err = os.ReadFile(path)
	return path, data, err
}

// Parse reads the text of a task.yaml; name is how errors call the file.
func Parse(name string, data []byte) (berth.TaskSpec, error) {
	doc, err := yamlstrict.Parse(name, data)
	if err != nil {
		return berth.TaskSpec{}, err
	}
	root := doc.Root()
	if !root.Present() {
		root.Failf("the file is empty; write at least image: docker.io/library/busybox:1.35")
	}
	spec := task(root)
	if err := doc.Err(); err != nil {
		return berth.TaskSpec{}, err
	}
	if spec.Image == "" {
		return spec, nil
	}
	if err := spec.Validate(); err != nil {
		return berth.TaskSpec{}, berth.Errorf(berth.CodeInvalid, "%s: %w", name, err)
	}
	return spec, nil
}

func task(root *yamlstrict.Node) berth.TaskSpec {
	f := root.Fields("version", "name", "image", "entrypoint", "args", "env", "user", "on", "cpu", "memory", "gpu", "ephemeral_storage",
		"timeout", "retries", "idempotent", "labels", "pull", "priority", "steps")
	for _, name := range []string{"entrypoint", "args"} {
		if f.Has("steps") && f.Has(name) {
			f.Get(name).FailKeyf("is for a task of one command, and this one has steps; each of them states its whole command")
			return berth.TaskSpec{}
		}
	}
	if f.Has("version") {
		f.Get("version").Int(1, 1)
	}
	spec := berth.TaskSpec{
		Name:             checked(f.Get("name"), berth.ValidateName),
		Image:            checked(f.Get("image"), berth.ValidateImage),
		Entrypoint:       words(f.Get("entrypoint")),
		Args:             words(f.Get("args")),
		Env:              env(f.Get("env")),
		CPU:              quantity(f.Get("cpu"), cpu),
		Memory:           quantity(f.Get("memory"), size),
		EphemeralStorage: quantity(f.Get("ephemeral_storage"), size),
		Timeout:          f.Get("timeout").Duration(time.Second, maxTimeout),
		Idempotent:       f.Get("idempotent").Bool(),
		Labels:           f.Get("labels").TextMap(),
		Steps:            steps(f.Get("steps")),
	}
	if f.Has("user") {
		spec.User = scalar(f.Get("user"), func(text string) error { _, _, err := berth.ParseUser(text); return err })
	}
	if f.Has("gpu") {
		spec.GPU = int(f.Get("gpu").Int(0, math.MaxInt32))
	}
	if on := f.Get("on"); on != nil {
		name, where, err := berth.ParseOn(on.Text())
		if err == nil && where == nil {
			err = berth.ValidateInfrastructureName(name)
		}
		if err != nil {
			on.Failf("%v", err)
		}
		spec.Infrastructure, spec.Where = name, where
	}
	if f.Has("priority") {
		spec.Priority = int(f.Get("priority").Int(-berth.MaxPriority, berth.MaxPriority))
	}
	if f.Has("retries") {
		spec.Retries = int(f.Get("retries").Int(0, 1000))
	}
	if f.Has("pull") {
		spec.Pull = berth.PullPolicy(f.Get("pull").OneOf("missing", "always", "never"))
	}
	for _, entry := range f.Get("labels").Entries() {
		if err := berth.ValidateLabel(entry.Key, spec.Labels[entry.Key]); err != nil {
			entry.FailKeyf("%v", err)
		}
	}
	return spec
}

// checked is a string with a check of the domain.
func checked(n *yamlstrict.Node, check func(string) error) string {
	if n == nil {
		return ""
	}
	text := n.Text()
	if err := check(text); err != nil {
		n.Failf("%v", err)
	}
	return text
}

func scalar(n *yamlstrict.Node, check func(string) error) string {
	text := n.Scalar()
	if err := check(text); err != nil {
		n.Failf("%v", err)
	}
	return text
}

func cpu(q berth.Quantity) error  { _, err := q.MilliCPU(); return err }
func size(q berth.Quantity) error { _, err := q.Bytes(); return err }

// quantity may be written as a number: cpu: 2.
func quantity(n *yamlstrict.Node, check func(berth.Quantity) error) berth.Quantity {
	if n == nil {
		return ""
	}
	return berth.Quantity(scalar(n, func(text string) error { return check(berth.Quantity(text)) }))
}

// words is a list of strings; a number stands for itself, as in args: [sleep, 5].
// A single string is one word, if it is one: nothing here splits as a shell does.
func words(n *yamlstrict.Node) []string {
	if n.IsText() {
		if text := n.Text(); !strings.ContainsAny(text, " \t\n") {
			return []string{text}
		}
		n.Failf("want a list of words, such as [echo, hello]")
		return nil
	}
	var words []string
	for _, item := range n.Items() {
		words = append(words, item.Scalar())
	}
	return words
}

// env is a map of names to values, or a list of {name, value} as Kubernetes
// writes it.
func env(n *yamlstrict.Node) []berth.EnvVar {
	var vars []berth.EnvVar
	if !n.IsList() {
		for _, entry := range n.Entries() {
			vars = append(vars, berth.EnvVar{Name: entry.Key, Value: entry.Scalar()})
		}
		return vars
	}
	seen := map[string]bool{}
	for _, item := range n.Items() {
		f := item.Fields("name", "value")
		name, value := f.Require("name", "write {name: NAME, value: VALUE}"), f.Require("value", "write {name: NAME, value: VALUE}")
		if name == nil || value == nil {
			return nil
		}
		v := berth.EnvVar{Name: name.Text(), Value: value.Scalar()}
		if seen[v.Name] {
			name.Failf("%s is there twice; keep one", v.Name)
		}
		seen[v.Name] = true
		vars = append(vars, v)
	}
	return vars
}
