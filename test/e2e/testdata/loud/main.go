// Command loud writes numbered lines of 100 bytes to stdout at a pace, as
// programs that log a lot do: loud LINES PER_SECOND [STDERR_EVERY]. Every so
// many lines one goes to stderr in place of stdout.
package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	numbers := make([]int, 3)
	for i := range min(len(args), len(numbers)) {
		n, err := strconv.Atoi(args[i])
		if err != nil {
			return err
		}
		numbers[i] = n
	}
	lines, perSecond, stderrEvery := numbers[0], numbers[1], numbers[2]
	const perWrite = 100
	pause := time.Second * perWrite / time.Duration(perSecond)
	next := time.Now()
	var out, errs bytes.Buffer
	for i := 0; i < lines; i++ {
		to := &out
		if stderrEvery > 0 && i%stderrEvery == 0 {
			to = &errs
		}
		fmt.Fprintf(to, "%099d\n", i)
		if (i+1)%perWrite == 0 || i+1 == lines {
			if _, err := out.WriteTo(os.Stdout); err != nil {
				return err
			}
			if _, err := errs.WriteTo(os.Stderr); err != nil {
				return err
			}
			next = next.Add(pause)
			time.Sleep(time.Until(next))
		}
	}
	return nil
}
