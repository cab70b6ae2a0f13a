package workflow

import (
	"slices"

	"go.starlark.net/resolve"
	"go.starlark.net/syntax"

	"github.com/berth-run/berth"
)

// Ways to call what is a task.
const (
	asCall   = ""       // f(...): the value
	asFuture = "submit" // f.submit(...): a future
	asMap    = "map"    // f.map(...): once for each element of lists
)

// callee is what a call makes a task of.
type callee struct {
	pkg      *packageName // nil: the built-in function run
	function string
	name     *syntax.Ident // where the function's name is written
	how      string
}

func (k *callee) text() string {
	text := nameRun
	if k.pkg != nil {
		text = k.pkg.name + "." + k.function
	}
	if k.how != asCall {
		text += "." + k.how
	}
	return text
}

// longest bounds how many names are followed to what they stand for.
const longest = 20

// builtin reports whether an expression is a built-in name.
func builtin(e syntax.Expr, name string) bool {
	id, ok := unparen(e).(*syntax.Ident)
	if !ok || id.Name != name {
		return false
	}
	binding, ok := id.Binding.(*resolve.Binding)
	return ok && binding.Scope == resolve.Predeclared
}

// value is the one expression that a name stands for, nil where that can't be told.
func (c *checker) value(e syntax.Expr) syntax.Expr {
	id, ok := unparen(e).(*syntax.Ident)
	if !ok {
		return nil
	}
	v := c.of(id)
	if v == nil || v.unknown || v.def != nil || len(v.values) != 1 {
		return nil
	}
	return v.values[0]
}

// packageOf is the package that an expression is, nil where it is none or that
// can't be told.
func (c *checker) packageOf(e syntax.Expr, depth int) *packageName {
	if call, ok := unparen(e).(*syntax.CallExpr); ok && builtin(call.Fn, namePackage) {
		name, _, _ := packageNamed(call)
		return name
	}
	if value := c.value(e); value != nil && depth < longest {
		return c.packageOf(value, depth+1)
	}
	return nil
}

// packageNamed reads the arguments of package. What is wrong with them is told
// with the expression that it is about.
func packageNamed(call *syntax.CallExpr) (name *packageName, about syntax.Expr, wrong string) {
	const usage = "package takes a name and a version, such as package(\"text\", \"1.0.0\")"
	keys := []string{"name", "version"}
	given := map[string]string{}
	for i, arg := range call.Args {
		key, value := keyword(arg)
		if key == "" && i < len(keys) {
			key = keys[i]
		}
		if !slices.Contains(keys, key) {
			return nil, arg, usage
		}
		literal, ok := unparen(value).(*syntax.Literal)
		if !ok || literal.Token != syntax.STRING || literal.Value == "" {
			return nil, value, "package takes its " + key + " as a written text: a run fixes which image is meant before it begins"
		}
		given[key] = literal.Value.(string)
	}
	if given["name"] == "" {
		return nil, call, usage
	}
	return &packageName{given["name"], given["version"]}, nil, ""
}

// keyword splits an argument; the name is empty for one without.
func keyword(arg syntax.Expr) (string, syntax.Expr) {
	if b, ok := arg.(*syntax.BinaryExpr); ok && b.Op == syntax.EQ {
		return b.X.(*syntax.Ident).Name, b.Y
	}
	return "", arg
}

// calleeOf is what an expression makes a task of when it is called; nil where it
// makes none, or that can't be told.
func (c *checker) calleeOf(e syntax.Expr, depth int) *callee {
	if builtin(e, nameRun) {
		return &callee{}
	}
	if dot, ok := unparen(e).(*syntax.DotExpr); ok {
		if inner := c.calleeOf(dot.X, depth); inner != nil && inner.how == asCall {
			how := dot.Name.Name
			if how != asFuture && how != asMap {
				return nil
			}
			return &callee{inner.pkg, inner.function, inner.name, how}
		}
		if pkg := c.packageOf(dot.X, depth); pkg != nil {
			return &callee{pkg: pkg, function: dot.Name.Name, name: dot.Name}
		}
		return nil
	}
	if value := c.value(e); value != nil && depth < longest {
		return c.calleeOf(value, depth+1)
	}
	return nil
}

// find looks a package up, once.
func (c *checker) find(name packageName) *known {
	k := c.packages[name]
	if k == nil {
		k = &known{}
		k.pkg, k.err = c.lookup(name.name, name.version)
		if code := berth.CodeOf(k.err); k.err != nil && code != berth.CodeNotFound && code != berth.CodeInvalid && c.broken == nil {
			c.broken = k.err
		}
		c.packages[name] = k
		c.named = append(c.named, name)
	}
	return k
}
