package workflow

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.starlark.net/syntax"

	"github.com/berth-run/berth/internal/nearest"
)

// CheckArguments tells whether main can be called with these arguments, by name:
// none is missing, none is unknown, each is JSON.
func (p *Program) CheckArguments(given map[string]json.RawMessage) error {
	main := p.main()
	if main == nil {
		return fmt.Errorf("%s: there is no function main, which is what a run calls: def main(...):", p.Main)
	}
	var known, missing []string
	more := false
	for _, param := range main.Params {
		switch param := param.(type) {
		case *syntax.Ident:
			known = append(known, param.Name)
			if _, ok := given[param.Name]; !ok {
				missing = append(missing, param.Name)
			}
		case *syntax.BinaryExpr: // with a default
			known = append(known, param.X.(*syntax.Ident).Name)
		case *syntax.UnaryExpr: // *, *args, **kwargs
			more = more || param.Op == syntax.STARSTAR
		}
	}
	for _, name := range sortedKeys(given) {
		if !more && !slices.Contains(known, name) {
			text := fmt.Sprintf("main has no argument %s", name)
			if near := nearest.Word(name, known); near != "" {
				text += "; did you mean " + near + "?"
			}
			return errors.New(text)
		}
		if !json.Valid(given[name]) {
			return fmt.Errorf("argument %s is not JSON", name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("main is called without %s: a run takes NAME=VALUE", strings.Join(missing, " and "))
	}
	return nil
}
