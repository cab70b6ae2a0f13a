// Command berthlet is the agent inside containers of functions and of tasks
// with steps. See internal/let.
package main

import (
	"os"

	"github.com/berth-run/berth/internal/let"
)

func main() { os.Exit(let.Main(os.Args[1:])) }
