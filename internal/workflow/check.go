package workflow

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/nearest"
)

// The names that programs find, beside those of Starlark itself.
const (
	namePackage = "package"
	nameRun     = "run"
)

var predeclared = []string{namePackage, nameRun, "gather", "try_call", "sleep", "now", "json", "math"}

func isPredeclared(name string) bool { return slices.Contains(predeclared, name) }

// Lookup returns a package; the newest version for an empty one. CodeNotFound
// and CodeInvalid are faults of the program, others of the world.
type Lookup func(name, version string) (berth.Package, error)

// Report is what a program was found to be.
type Report struct {
	File       string      `json:"file"`
	Parameters []Parameter `json:"parameters"` // of main
	Packages   []Used      `json:"packages"`   // in the order in which the program names them
	Problems   []Problem   `json:"problems"`   // by file and place
}

// Used is a package that a program names.
type Used struct {
	Name      string   `json:"name"`
	Version   string   `json:"version"` // that it stands for
	Digest    string   `json:"digest"`
	Functions []string `json:"functions"` // that the program calls
}

// Check tells what is wrong with a program, as far as that can be told without
// running it: names that are not known, packages, functions and arguments that
// there are not, written values of another type than is declared, futures used
// as if they were values. What it says nothing of may still fail. The error is
// that of a lookup that came to nothing.
func (p *Program) Check(lookup Lookup) (Report, error) {
	c := &checker{
		program: p, lookup: lookup, packages: map[packageName]*known{}, variables: map[*syntax.Ident]*variable{},
		exports: map[string]map[string]*syntax.Ident{}, loaded: map[*syntax.Ident]*syntax.Ident{}, reported: map[Problem]bool{},
	}
	for _, name := range p.order {
		c.resolve(name)
	}
	if len(c.problems) == 0 { // names that aren't known would be told again as calls
		c.checkMain()
		for _, name := range p.order {
			c.checkFile(name)
		}
	}
	report := Report{File: p.Main, Parameters: p.Parameters(), Packages: c.used(), Problems: c.problems}
	slices.SortStableFunc(report.Problems, compareProblems)
	if report.Problems == nil {
		report.Problems = []Problem{}
	}
	return report, c.broken
}

func compareProblems(a, b Problem) int {
	if a.File != b.File {
		return strings.Compare(a.File, b.File)
	}
	if a.Line != b.Line {
		return a.Line - b.Line
	}
	return a.Column - b.Column
}

type checker struct {
	program *Program
	lookup  Lookup

	packages  map[packageName]*known
	named     []packageName                       // in order
	variables map[*syntax.Ident]*variable         // by the identifier that binds it first
	exports   map[string]map[string]*syntax.Ident // by file and name: globals
	loaded    map[*syntax.Ident]*syntax.Ident     // of a name that a file loads: the global of the other
	problems  []Problem
	reported  map[Problem]bool
	broken    error // a lookup that came to nothing
}

type packageName struct{ name, version string }

// known is a package that was looked up.
type known struct {
	pkg       berth.Package
	err       error // there is none
	functions []string
}

// variable is what a name can stand for.
type variable struct {
	values  []syntax.Expr // that are assigned to it
	unknown bool          // it gets others too: of a loop, a parameter, a part of a list
	def     *syntax.DefStmt
}

func (c *checker) problem(pos syntax.Position, format string, args ...any) {
	p := Problem{pos.Filename(), int(pos.Line), int(pos.Col), fmt.Sprintf(format, args...)}
	if !c.reported[p] {
		c.reported[p] = true
		c.problems = append(c.problems, p)
	}
}

// resolve finds what the names of a file mean, and what its variables can be.
func (c *checker) resolve(name string) {
	tree := c.program.trees[name]
	err := resolve.File(tree, isPredeclared, starlark.Universe.Has)
	var list resolve.ErrorList
	if errors.As(err, &list) {
		for _, e := range list {
			c.problem(e.Pos, "%s", meant(e.Msg))
		}
	}
	exports := map[string]*syntax.Ident{}
	if module, ok := tree.Module.(*resolve.Module); ok {
		for _, global := range module.Globals {
			exports[global.First.Name] = global.First
		}
	}
	c.exports[name] = exports
	syntax.Walk(tree, func(n syntax.Node) bool {
		c.bind(name, n)
		return true
	})
}

// starlarkMeant is how Starlark says which of a file's own names was meant.
var starlarkMeant = regexp.MustCompile(` \(did you mean (\w+)\?\)$`)

// meant has Starlark's word on a name that is not known end with the one that was
// meant, which may be one of ours too.
func meant(message string) string {
	if starlarkMeant.MatchString(message) {
		return starlarkMeant.ReplaceAllString(message, "; did you mean $1?")
	}
	if name, unknown := strings.CutPrefix(message, "undefined: "); unknown {
		if near := nearest.Word(name, predeclared); near != "" {
			message += "; did you mean " + near + "?"
		}
	}
	return message
}

// of is the variable that an identifier stands for; nil for what is built in.
func (c *checker) of(id *syntax.Ident) *variable {
	binding, ok := id.Binding.(*resolve.Binding)
	if !ok || binding.First == nil {
		return nil
	}
	first := binding.First
	if other := c.loaded[first]; other != nil {
		first = other
	}
	v := c.variables[first]
	if v == nil {
		v = &variable{}
		c.variables[first] = v
	}
	return v
}

// bind notes what a node assigns.
func (c *checker) bind(file string, n syntax.Node) {
	switch n := n.(type) {
	case *syntax.AssignStmt:
		if id, ok := unparen(n.LHS).(*syntax.Ident); ok && n.Op == syntax.EQ {
			if v := c.of(id); v != nil {
				v.values = append(v.values, n.RHS)
			}
			return
		}
		c.unknown(n.LHS)
	case *syntax.ForStmt:
		c.unknown(n.Vars)
	case *syntax.ForClause:
		c.unknown(n.Vars)
	case *syntax.DefStmt:
		if v := c.of(n.Name); v != nil {
			v.def = n
		}
		c.parameters(n.Params)
	case *syntax.LambdaExpr:
		c.parameters(n.Params)
	case *syntax.LoadStmt:
		c.bindLoaded(file, n)
	}
}

func (c *checker) parameters(params []syntax.Expr) {
	for _, param := range params {
		switch param := param.(type) {
		case *syntax.Ident:
			c.unknown(param)
		case *syntax.BinaryExpr:
			c.unknown(param.X)
		case *syntax.UnaryExpr:
			c.unknown(param.X)
		}
	}
}

// unknown notes that names get values that can't be told by reading.
func (c *checker) unknown(e syntax.Expr) {
	switch e := e.(type) {
	case *syntax.Ident:
		if v := c.of(e); v != nil {
			v.unknown = true
		}
	case *syntax.ParenExpr:
		c.unknown(e.X)
	case *syntax.TupleExpr:
		for _, x := range e.List {
			c.unknown(x)
		}
	case *syntax.ListExpr:
		for _, x := range e.List {
			c.unknown(x)
		}
	}
}

// bindLoaded connects the names that a file loads with those that they are.
func (c *checker) bindLoaded(file string, s *syntax.LoadStmt) {
	target := c.program.loads[file][s.ModuleName()]
	exports, ok := c.exports[target]
	if !ok {
		return
	}
	for i, from := range s.From {
		global, ok := exports[from.Name]
		if !ok {
			var names []string
			for name := range exports {
				names = append(names, name)
			}
			slices.Sort(names)
			text := fmt.Sprintf("%s has no %s", target, from.Name)
			if near := nearest.Word(from.Name, names); near != "" {
				text += "; did you mean " + near + "?"
			}
			c.problem(from.NamePos, "%s", text)
			continue
		}
		if binding, ok := s.To[i].Binding.(*resolve.Binding); ok {
			c.loaded[binding.First] = global
		}
	}
}

func (c *checker) checkMain() {
	p := c.program
	switch def := p.main(); {
	case def != nil:
		for _, param := range def.Params {
			if star, ok := param.(*syntax.UnaryExpr); ok && star.X != nil {
				c.problem(star.OpPos, "main takes its arguments by name, as a run is given them: NAME=VALUE")
			}
		}
	case c.exports[p.Main]["main"] != nil:
		c.problem(c.exports[p.Main]["main"].NamePos, "main has to be a function, defined by def main(...):")
	default:
		c.problems = append(c.problems, Problem{File: p.Main, Message: "there is no function main, which is what a run calls: def main(...):"})
	}
}

func (c *checker) checkFile(name string) {
	var within []*syntax.DefStmt // functions that are open, the innermost last
	var visit func(n syntax.Node) bool
	visit = func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.DefStmt:
			within = append(within, n)
			for _, param := range n.Params {
				syntax.Walk(param, visit)
			}
			for _, s := range n.Body {
				syntax.Walk(s, visit)
			}
			within = within[:len(within)-1]
			return false
		case *syntax.CallExpr:
			c.checkCall(n)
			if id, ok := unparen(n.Fn).(*syntax.Ident); ok {
				if v := c.of(id); v != nil && v.def != nil && len(v.values) == 0 && slices.Contains(within, v.def) {
					c.problem(id.NamePos, "%s calls itself, which Starlark does not do: use a loop", id.Name)
				}
			}
		}
		c.checkFutures(n)
		return true
	}
	syntax.Walk(c.program.trees[name], visit)
}

func unparen(e syntax.Expr) syntax.Expr {
	for {
		paren, ok := e.(*syntax.ParenExpr)
		if !ok {
			return e
		}
		e = paren.X
	}
}

func (c *checker) used() []Used {
	used := []Used{}
	for _, name := range c.named {
		k := c.packages[name]
		if k.err != nil {
			continue
		}
		slices.Sort(k.functions)
		used = append(used, Used{k.pkg.Name, k.pkg.Version, k.pkg.Digest, append([]string{}, slices.Compact(k.functions)...)})
	}
	return used
}
