package engine

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/rs/xid"
)

// newest is a store with one task.
type newest struct {
	Store
	id  string
	err error
}

func (n newest) NewestTask(context.Context) (string, error) { return n.id, n.err }

func TestLaterTasksHaveGreaterIDs(t *testing.T) {
	// Of a process whose number is greater, later in this very second; and one
	// whose clock was ahead.
	var sibling xid.ID
	for i := range sibling {
		sibling[i] = 0xff
	}
	copy(sibling[:4], xid.NewWithTime(time.Now()).Bytes())
	for name, earlier := range map[string]string{
		"no task":                       "",
		"a task of this second":         sibling.String(),
		"a task of a clock that is off": xid.NewWithTime(time.Now().Add(time.Hour)).String(),
		"an id of another form":         "task-1",
	} {
		t.Run(name, func(t *testing.T) {
			var i ids
			before := earlier
			if _, err := xid.FromString(before); err != nil {
				before = ""
			}
			for range 1000 {
				id, err := i.next(t.Context(), newest{id: earlier})
				if err != nil {
					t.Fatal(err)
				}
				if id <= before {
					t.Fatalf("%s follows %s", id, before)
				}
				before = id
			}
		})
	}
	var i ids
	if _, err := i.next(t.Context(), newest{err: errors.New("no disk")}); err == nil {
		t.Error("an id was given without knowing those before")
	}
}
