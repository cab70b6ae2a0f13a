// Command arithmetic is the program of an example package. The function's name
// is its first argument; the inputs are in the file that $BERTH_INPUT names.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	c, err := calculate(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("c:", c)
}

func calculate(args []string) (int64, error) {
	if len(args) != 1 {
		return 0, fmt.Errorf("want one argument, the name of a function; got %d", len(args))
	}
	data, err := os.ReadFile(os.Getenv("BERTH_INPUT"))
	if err != nil {
		return 0, err
	}
	var in struct{ A, B int64 }
	if err := json.Unmarshal(data, &in); err != nil {
		return 0, err
	}
	switch args[0] {
	case "add":
		return in.A + in.B, nil
	case "subtract":
		return in.A - in.B, nil
	case "multiply":
		return in.A * in.B, nil
	case "divide":
		return divide(in.A, in.B)
	}
	return 0, fmt.Errorf("there is no function %q", args[0])
}

// divide rounds down, where Go's own division rounds towards zero.
func divide(a, b int64) (int64, error) {
	if b == 0 {
		return 0, fmt.Errorf("%d can't be divided by 0", a)
	}
	c := a / b
	if a%b != 0 && (a < 0) != (b < 0) {
		c--
	}
	return c, nil
}
