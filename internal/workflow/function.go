package workflow

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.starlark.net/starlark"

	"github.com/berth-run/berth"
)

// packageValue is a package in a program; its attributes are its functions.
type packageValue struct {
	run *run
	pkg *berth.Package
}

func (p *packageValue) String() string {
	return fmt.Sprintf("package(%q, %q)", p.pkg.Name, p.pkg.Version)
}
func (p *packageValue) Type() string         { return "package" }
func (p *packageValue) Freeze()              {}
func (p *packageValue) Truth() starlark.Bool { return true }
func (p *packageValue) Hash() (uint32, error) {
	return starlark.String(p.pkg.Name + "@" + p.pkg.Version).Hash()
}

func (p *packageValue) AttrNames() []string {
	var names []string
	for i := range p.pkg.Functions {
		names = append(names, p.pkg.Functions[i].Name)
	}
	return names
}

func (p *packageValue) Attr(name string) (starlark.Value, error) {
	fn, err := p.pkg.Lookup(name)
	if err != nil {
		return nil, err
	}
	return &function{run: p.run, pkg: p.pkg, fn: fn}, nil
}

func (e *run) packageBuiltin(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var name, version string
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "name", &name, "version?", &version); err != nil {
		return nil, err
	}
	pkg, err := e.Packages(name, version)
	if err != nil {
		return nil, err
	}
	return &packageValue{e, &pkg}, nil
}

// function is what makes tasks: a function of a package, or run, which has none.
type function struct {
	run *run
	pkg *berth.Package
	fn  *berth.Function
	how string // asCall, asFuture or asMap
}

func (f *function) Name() string {
	if f.fn == nil {
		return nameRun
	}
	return f.pkg.Name + "." + f.fn.Name
}

func (f *function) String() string        { return fmt.Sprintf("<function %s>", f.spoken()) }
func (f *function) Type() string          { return "function" }
func (f *function) Freeze()               {}
func (f *function) Truth() starlark.Bool  { return true }
func (f *function) Hash() (uint32, error) { return starlark.String(f.spoken()).Hash() }

func (f *function) spoken() string {
	if f.how != asCall {
		return f.Name() + "." + f.how
	}
	return f.Name()
}

func (f *function) AttrNames() []string { return []string{asMap, asFuture} }

func (f *function) Attr(name string) (starlark.Value, error) {
	if f.how != asCall || name != asFuture && name != asMap {
		return nil, nil
	}
	as := *f
	as.how = name
	return &as, nil
}

func (f *function) CallInternal(thread *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	given, options, parallel, err := f.sort(args, kwargs)
	if err != nil {
		return nil, err
	}
	switch f.how {
	case asFuture:
		return f.begin(thread, given, options, nil)
	case asMap:
		return f.each(thread, given, options, parallel)
	}
	for _, name := range sortedKeys(given) {
		if _, ok := given[name].(*Future); ok {
			return nil, fmt.Errorf("%s waits and takes values: use %s.submit, or the .result() of the future for %s", f.Name(), f.Name(), name)
		}
	}
	future, err := f.begin(thread, given, options, nil)
	if err != nil {
		return nil, err
	}
	return future.result()
}

// sort tells what a call gives apart: arguments of what is called, and options.
func (f *function) sort(args starlark.Tuple, kwargs []starlark.Tuple) (given map[string]starlark.Value, o Options, parallel int, err error) {
	given = map[string]starlark.Value{}
	if f.fn != nil && len(args) > 0 {
		return nil, o, 0, fmt.Errorf("the arguments of %s are given by name: %s(%s)", f.spoken(), f.spoken(), byName(f.fn))
	}
	if len(args) > runPlain {
		return nil, o, 0, errors.New(runUsage)
	}
	for i, value := range args {
		given[runFields[i]] = value
	}
	for _, pair := range kwargs {
		name := string(pair[0].(starlark.String))
		option, isOption := optionOf(f.fn, name, f.how)
		switch {
		case isOption:
			if err := option.take(&o, &parallel, pair[1]); err != nil {
				return nil, o, 0, err
			}
		case f.fn == nil && !slices.Contains(runFields, name), f.fn != nil && f.fn.Input(name) == nil:
			return nil, o, 0, errors.New(unknownArgument(f.fn, f.spoken(), f.how, name))
		case given[name] != nil:
			return nil, o, 0, fmt.Errorf("run is given %s twice", name)
		default:
			given[name] = pair[1]
		}
	}
	return given, o, parallel, nil
}

// take sets an option of a call.
func (p *option) take(o *Options, parallel *int, value starlark.Value) error {
	if value == starlark.None {
		return nil
	}
	v, err := encode(value, nil)
	if err != nil || !p.fits(v) {
		return fmt.Errorf("%s is %s, have %s", p.name, p.want, shortest(fmt.Sprint(value)))
	}
	switch p.name {
	case "on":
		o.On = text(v)
	case "cpu":
		o.CPU = quantity(v)
	case "memory":
		o.Memory = quantity(v)
	case "timeout":
		o.Timeout, err = time.ParseDuration(text(v))
	case "retries":
		err = json.Unmarshal(v, &o.Retries)
	case "cache":
		o.Cache = string(v) == "true"
	case "name":
		o.Name = text(v)
	case "max_parallel":
		err = json.Unmarshal(v, parallel)
	}
	return err
}

// dimensions is how many times an argument is a list by its declaration.
func (f *function) dimensions(name string) int {
	if f.fn == nil {
		return map[string]int{"args": 1}[name]
	}
	t, err := berth.ParseType(f.fn.Input(name).Type)
	if err != nil {
		return 0
	}
	return t.Dimensions
}

// depth is how many times a value is a list, by its first elements.
func depth(v starlark.Value) int {
	n := 0
	for n < deepest {
		list, ok := v.(starlark.Indexable)
		if _, isText := v.(starlark.String); !ok || isText {
			return n
		}
		n++
		if list.Len() == 0 {
			return n
		}
		v = list.Index(0)
	}
	return n
}

// each makes a call of each element of the lists that are given where none is
// declared, and returns the list of their values.
func (f *function) each(thread *starlark.Thread, given map[string]starlark.Value, options Options, parallel int) (starlark.Value, error) {
	lists := map[string]starlark.Indexable{}
	first := ""
	for _, name := range sortedKeys(given) {
		if depth(given[name]) <= f.dimensions(name) {
			continue
		}
		list := given[name].(starlark.Indexable)
		if first == "" {
			first = name
		} else if n := lists[first].Len(); list.Len() != n {
			return nil, fmt.Errorf("%s is given lists of different lengths: %s has %d elements, %s has %d", f.spoken(), first, n, name, list.Len())
		}
		lists[name] = list
	}
	if first == "" {
		return nil, fmt.Errorf("%s is given no list: at least one argument has to be one, and a list of lists where the function takes a list", f.spoken())
	}
	var slots chan struct{}
	if parallel > 0 {
		slots = make(chan struct{}, parallel)
	}
	futures := make([]*Future, lists[first].Len())
	for i := range futures {
		one := make(map[string]starlark.Value, len(given))
		for name, value := range given {
			if list := lists[name]; list != nil {
				value = list.Index(i)
			}
			one[name] = value
		}
		var err error
		if futures[i], err = f.begin(thread, one, options, slots); err != nil {
			return nil, err
		}
	}
	return values(futures)
}

// values waits for futures, and returns the list of their values.
func values(futures []*Future) (starlark.Value, error) {
	all := make([]starlark.Value, len(futures))
	for i, f := range futures {
		value, err := f.result()
		if err != nil {
			for _, other := range futures[i+1:] {
				other.used = true // the first failure stands for all
			}
			return nil, err
		}
		all[i] = value
	}
	return starlark.NewList(all), nil
}
