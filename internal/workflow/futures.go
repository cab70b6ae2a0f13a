package workflow

import (
	"go.starlark.net/syntax"
)

// isFuture reports whether an expression is surely a future.
func (c *checker) isFuture(e syntax.Expr, depth int) bool {
	if call, ok := unparenOr(e).(*syntax.CallExpr); ok {
		k := c.calleeOf(call.Fn, 0)
		return k != nil && k.how == asFuture
	}
	if e == nil || depth > longest {
		return false
	}
	value := c.value(e)
	return value != nil && c.isFuture(value, depth+1)
}

// checkFutures tells of futures that are used as if they were values. Starlark
// itself would answer False when one is compared.
func (c *checker) checkFutures(n syntax.Node) {
	told := func(e syntax.Expr, what string) {
		if c.isFuture(e, 0) {
			c.problem(start(e), "a future %s; its value is %s.result()", what, shortest(c.program.source(e)))
		}
	}
	switch n := n.(type) {
	case *syntax.BinaryExpr:
		switch n.Op {
		case syntax.EQL, syntax.NEQ, syntax.LT, syntax.LE, syntax.GT, syntax.GE, syntax.IN, syntax.NOT_IN:
			told(n.X, "is compared, not its value")
			told(n.Y, "is compared, not its value")
		case syntax.EQ: // of an argument
		case syntax.AND, syntax.OR:
			told(n.X, "is neither true nor false")
		default:
			told(n.X, "is no value to reckon with")
			told(n.Y, "is no value to reckon with")
		}
	case *syntax.UnaryExpr:
		if n.Op == syntax.NOT {
			told(n.X, "is neither true nor false")
		}
	case *syntax.CondExpr:
		told(n.Cond, "is neither true nor false")
	case *syntax.IfStmt:
		told(n.Cond, "is neither true nor false")
	case *syntax.WhileStmt:
		told(n.Cond, "is neither true nor false")
	case *syntax.ForStmt:
		told(n.X, "has no elements")
	case *syntax.ForClause:
		told(n.X, "has no elements")
	case *syntax.IndexExpr:
		told(n.X, "has no elements")
	case *syntax.SliceExpr:
		told(n.X, "has no elements")
	case *syntax.CallExpr:
		if k := c.calleeOf(n.Fn, 0); k != nil && k.how == asCall {
			for _, arg := range n.Args {
				_, value := keyword(arg)
				told(value, "is an argument of a call that waits, where only "+k.text()+".submit takes one")
			}
		}
	}
}

// shortest is a text for a sentence.
func shortest(text string) string {
	if runes := []rune(text); len(runes) > 40 {
		return string(runes[:37]) + "..."
	}
	return text
}
