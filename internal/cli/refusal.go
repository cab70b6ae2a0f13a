package cli

import (
	"errors"
	"fmt"

	"github.com/berth-run/berth"
)

// refusal is what -o json gives of a submission that was refused.
type refusal struct {
	Error refusalError `json:"error"`
}

type refusalError struct {
	Code      berth.ErrorCode  `json:"code"`
	Message   string           `json:"message"`
	Diagnosis *berth.Diagnosis `json:"diagnosis"`
}

// refused tells why an infrastructure would not take a submission, as the end
// of a task is told. Any other error is given back.
func (a *app) refused(err error) error {
	var told *berth.Error
	if !errors.As(err, &told) || told.Diagnosis == nil {
		return err
	}
	d := told.Diagnosis
	fmt.Fprintf(a.stderr, "berth: the task was refused, and nothing was made: %s\n%s", d.Cause, advice(d, textWidth(a.stderr)))
	fmt.Fprintln(a.stderr, "  --no-preflight submits it all the same")
	if a.output != "table" {
		if err := a.print(refusal{refusalError{told.Code, told.Message, d}}, nil); err != nil {
			return err
		}
	}
	return exitError(berth.ExitNone)
}
