package workflow

import (
	"fmt"
	"slices"
	"strings"

	"go.starlark.net/syntax"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/nearest"
)

// checkCall checks a call of a package, or of what makes a task.
func (c *checker) checkCall(call *syntax.CallExpr) {
	if builtin(call.Fn, namePackage) {
		name, about, wrong := packageNamed(call)
		if name == nil {
			c.problem(start(about), "%s", wrong)
		} else if k := c.find(*name); k.err != nil {
			c.problem(start(call), "%s", k.err)
		}
		return
	}
	k := c.calleeOf(call.Fn, 0)
	if k == nil {
		return
	}
	if k.pkg == nil {
		c.checkRun(call, k)
		return
	}
	c.checkFunction(call, k)
}

func start(e syntax.Expr) syntax.Position {
	pos, _ := e.Span()
	return pos
}

// arguments are those of a call by name, as they are written.
type arguments struct {
	named map[string]syntax.Expr
	order []string
	plain []syntax.Expr // without a name
	open  bool          // *args or **kwargs may have more
}

func argumentsOf(call *syntax.CallExpr) arguments {
	a := arguments{named: map[string]syntax.Expr{}}
	for _, arg := range call.Args {
		if star, ok := arg.(*syntax.UnaryExpr); ok && (star.Op == syntax.STAR || star.Op == syntax.STARSTAR) {
			a.open = true
			continue
		}
		key, value := keyword(arg)
		if key == "" {
			a.plain = append(a.plain, value)
			continue
		}
		a.named[key] = value
		a.order = append(a.order, key)
	}
	return a
}

func (c *checker) checkFunction(call *syntax.CallExpr, k *callee) {
	found := c.find(*k.pkg)
	if found.err != nil {
		return // told where the package is named
	}
	fn, err := found.pkg.Lookup(k.function)
	if err != nil {
		c.problem(k.name.NamePos, "%s", err)
		return
	}
	found.functions = append(found.functions, fn.Name)
	args := argumentsOf(call)
	for _, plain := range args.plain {
		c.problem(start(plain), "the arguments of %s are given by name: %s(%s)", k.text(), k.text(), byName(fn))
		return
	}
	for _, name := range args.order {
		value := args.named[name]
		switch option, isOption := optionOf(fn, name, k.how); {
		case isOption:
			c.checkOption(option, value)
		case fn.Input(name) == nil:
			c.problem(keywordStart(call, name), "%s", unknownArgument(fn, k.text(), k.how, name))
			args.open = true // it may be the one that is missing
		default:
			c.checkArgument(&found.pkg, fn.Input(name), value, k)
		}
	}
	if args.open {
		return
	}
	var missing []string
	for i := range fn.Inputs {
		in := &fn.Inputs[i]
		if _, given := args.named[in.Name]; !given && in.Default == nil && !in.Optional {
			missing = append(missing, in.Name)
		}
	}
	if len(missing) > 0 {
		c.problem(start(call), "%s is called without %s: %s(%s)", k.text(), strings.Join(missing, " and "), k.text(), byName(fn))
	}
}

// keywordStart is where the name of an argument is written.
func keywordStart(call *syntax.CallExpr, name string) syntax.Position {
	for _, arg := range call.Args {
		if key, _ := keyword(arg); key == name {
			return start(arg)
		}
	}
	return start(call)
}

// byName is a function's inputs as a call has them.
func byName(fn *berth.Function) string {
	var words []string
	for i := range fn.Inputs {
		in := &fn.Inputs[i]
		word := in.Name + " = " + in.Type
		if in.Default != nil || in.Optional {
			word = "[" + word + "]"
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

// unknownArgument says that a call is given what neither its function, nil for
// run, nor calls as such take.
func unknownArgument(fn *berth.Function, spoken, how, name string) string {
	names := optionNames(how)
	if fn == nil {
		names = append(names, runFields...)
	} else {
		for i := range fn.Inputs {
			names = append(names, fn.Inputs[i].Name)
		}
	}
	text := fmt.Sprintf("%s has no argument %s", spoken, name)
	if near := nearest.Word(name, names); near != "" {
		text += "; did you mean " + near + "?"
	}
	if fn != nil {
		text += fmt.Sprintf(" It is called as %s(%s)", spoken, byName(fn))
	}
	return text
}

// checkArgument checks a written value against the declared type. With map an
// argument with a list too many is one of as many calls.
func (c *checker) checkArgument(pkg *berth.Package, in *berth.Parameter, value syntax.Expr, k *callee) {
	t, err := berth.ParseType(in.Type)
	if err != nil {
		return
	}
	if elements := listOf(value); k.how == asMap && elements != nil && (t.Dimensions == 0 || slices.ContainsFunc(elements, func(e syntax.Expr) bool { return listOf(e) != nil })) {
		for _, e := range elements {
			c.checkValue(pkg, in, e)
		}
		return
	}
	c.checkValue(pkg, in, value)
}

func (c *checker) checkValue(pkg *berth.Package, in *berth.Parameter, value syntax.Expr) {
	text, ok := written(value)
	if !ok || in.Optional && string(text) == "null" {
		return
	}
	if err := pkg.CheckArgument(in, text); err != nil {
		c.problem(start(value), "%s", err)
	}
}

// runFields are what run takes beside options, of which the first runPlain need
// no name.
var runFields = []string{"image", "args", "env"}

const (
	runPlain   = 2
	runExample = `run("docker.io/library/busybox:1.36", ["echo", "hello"])`
	runUsage   = "run takes an image and a list of arguments, such as " + runExample + "; what else there is has a name"
	runWithout = "run is called without an image, such as " + runExample
)

// checkRun checks run(image, args, ...), which makes a plain task.
func (c *checker) checkRun(call *syntax.CallExpr, k *callee) {
	args := argumentsOf(call)
	if len(args.plain) > runPlain {
		c.problem(start(args.plain[runPlain]), "%s", runUsage)
		return
	}
	given := map[string]syntax.Expr{}
	for i, e := range args.plain {
		given[runFields[i]] = e
	}
	for _, name := range args.order {
		value := args.named[name]
		switch option, ok := optionOf(nil, name, k.how); {
		case ok:
			c.checkOption(option, value)
		case slices.Contains(runFields, name):
			given[name] = value
		default:
			c.problem(keywordStart(call, name), "%s", unknownArgument(nil, k.text(), k.how, name))
		}
	}
	if image, ok := given["image"]; !ok && !args.open {
		c.problem(start(call), "%s", runWithout)
	} else if literal, ok := unparen(image).(*syntax.Literal); ok && image != nil {
		name, isText := literal.Value.(string)
		if !isText {
			c.problem(start(image), "run takes the name of an image as text, have %s", literal.Raw)
		} else if err := berth.ValidateImage(name); err != nil {
			c.problem(start(image), "%s", err)
		}
	}
	if literal, ok := given["args"].(*syntax.Literal); ok {
		c.problem(start(literal), "the arguments of run are a list of texts, such as [\"echo\", \"hello\"], have %s", literal.Raw)
	}
}
