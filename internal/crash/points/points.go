// Package points finds the names of all places of package crash in the sources,
// for tests: each that is added is tested without being listed anywhere.
package points

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Find returns the names of all points in the sources below a folder, in order. Each is passed at one place, and its name is written there.
func Find(folder string) ([]string, error) {
	var names []string
	places := map[string]token.Position{}
	err := filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			name, at, found := point(n)
			if !found || err != nil {
				return err == nil
			}
			where := set.Position(at)
			if name == "" {
				err = fmt.Errorf("%s: the name of a point has to be written where it is passed", where)
			} else if before, taken := places[name]; taken {
				err = fmt.Errorf("%s: the point %q is passed at %s as well", where, name, before)
			}
			places[name] = where
			names = append(names, name)
			return err == nil
		})
		return err
	})
	slices.Sort(names)
	return names, err
}

// point is the name in a call of crash.Point, empty where it isn't a literal.
func point(n ast.Node) (name string, at token.Pos, found bool) {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) != 1 {
		return "", 0, false
	}
	function, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || function.Sel.Name != "Point" {
		return "", 0, false
	}
	if from, ok := function.X.(*ast.Ident); !ok || from.Name != "crash" {
		return "", 0, false
	}
	literal, ok := call.Args[0].(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return "", call.Pos(), true
	}
	name, _ = strconv.Unquote(literal.Value)
	return name, call.Pos(), true
}
