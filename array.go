package berth

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// MaxArray is how many tasks an array may have: they are stored by one
// transaction, which others wait for.
const MaxArray = 100_000

// MaxItemBytes is how long all items of an array may be together.
const MaxItemBytes = 3 << 20

// Array is a number of tasks that were submitted together, by one transaction,
// and are listed, waited for, cancelled and retried as one.
type Array struct {
	ID             string            `json:"id"`
	Name           *string           `json:"name"`
	Infrastructure string            `json:"infrastructure"`
	Image          string            `json:"image"`
	Size           int               `json:"size"`
	States         map[TaskState]int `json:"states"` // how many of its tasks are in each state; every state is there
	CreatedAt      time.Time         `json:"createdAt"`
	CancelledAt    *time.Time        `json:"cancelRequestedAt"`
	RetryOf        *string           `json:"retryOf"` // the array whose tasks these are again
	Owner          string            `json:"owner"`
	Spec           TaskSpec          `json:"spec"` // of which each task's is made; see ForItem
}

// ArrayItem says which task of an array a task is.
type ArrayItem struct {
	ID    string `json:"id"`    // of the array
	Index int    `json:"index"` // as it was asked for
	Item  string `json:"item"`  // what it is for; empty for an array of numbers
}

// Ended returns how many tasks of the array have ended.
func (a *Array) Ended() int {
	n := 0
	for state, count := range a.States {
		if state.Terminal() {
			n += count
		}
	}
	return n
}

// Failed returns how many tasks of the array have ended in another way than well.
func (a *Array) Failed() int { return a.Ended() - a.States[StateSucceeded] }

// arrayPrefix begins the ids of arrays, and of nothing else.
const arrayPrefix = "a-"

// NewArrayID makes the id of an array from one that is unique.
func NewArrayID(unique string) string { return arrayPrefix + unique }

// IsArrayID tells the id of an array from that of a task.
func IsArrayID(id string) bool { return strings.HasPrefix(id, arrayPrefix) }

// NoSuchArray is the error for an id that no array has.
func NoSuchArray(id string) error {
	return Errorf(CodeNotFound, "there is no array %s; berth task list --arrays shows those that there are", id)
}

// ArraySubmission asks for an array.
type ArraySubmission struct {
	Key         string // idempotency key; one is made when it is empty
	Spec        TaskSpec
	Indices     []int    // of the tasks, ascending
	Items       []string // what each index is for; empty: the numbers alone
	NoPreflight bool
	RetryOf     string   // the array whose tasks these are again
	Among       []string // as of a Submission
}

// ArrayQuery selects arrays, newest first.
type ArrayQuery struct {
	Infrastructure string
	Owner          string // empty: all that the caller may see
	Limit          int    // at most this many; 0 means 100
	After          string // id of the last array of the page before
}

// ArrayPage is one page of arrays.
type ArrayPage struct {
	Arrays []Array
	Next   string // After of the next page; empty at the end
}

// The environment variables that tell a program which task of its array it is.
const (
	EnvArrayID    = "BERTH_ARRAY_ID"
	EnvArrayIndex = "BERTH_ARRAY_INDEX"
	EnvArrayItem  = "BERTH_ARRAY_ITEM"
)

// ForItem returns the spec of one task of an array: {index} and {item} in
// arguments, the entrypoint, the commands of steps and values of environment
// variables are replaced, and the variables above are set.
func (s *TaskSpec) ForItem(at ArrayItem) TaskSpec {
	index := strconv.Itoa(at.Index)
	item := at.Item
	if item == "" {
		item = index
	}
	replacer := strings.NewReplacer("{index}", index, "{item}", item)
	spec := *s
	spec.Args, spec.Entrypoint = replaced(replacer, s.Args), replaced(replacer, s.Entrypoint)
	spec.Env = make([]EnvVar, 0, len(s.Env)+3)
	for _, v := range s.Env {
		spec.Env = append(spec.Env, EnvVar{Name: v.Name, Value: replacer.Replace(v.Value)})
	}
	spec.Env = append(spec.Env, EnvVar{EnvArrayID, at.ID}, EnvVar{EnvArrayIndex, index}, EnvVar{EnvArrayItem, item})
	if len(s.Steps) > 0 {
		spec.Steps = make([]Step, len(s.Steps))
		for i, step := range s.Steps {
			step.Run, step.Command = replacer.Replace(step.Run), replaced(replacer, step.Command)
			spec.Steps[i] = step
		}
	}
	return spec
}

func replaced(r *strings.Replacer, words []string) []string {
	if len(words) == 0 {
		return words
	}
	out := make([]string, len(words))
	for i, word := range words {
		out[i] = r.Replace(word)
	}
	return out
}

// ParseIndices reads which indices an array has: numbers and ranges FIRST-LAST,
// with a step FIRST-LAST:STEP, separated by commas, such as 0-99, 1,5,9 or
// 0-1000:10. They come in ascending order and once each.
func ParseIndices(text string) ([]int, error) {
	seen := map[int]bool{}
	var indices []int
	for _, part := range strings.Split(text, ",") {
		first, last, step, err := parseRange(part)
		if err != nil {
			return nil, err
		}
		if n := (last-first)/step + 1; n+len(indices) > MaxArray {
			return nil, Errorf(CodeInvalid, "array %s: that is more than the %d tasks that an array may have; submit several arrays", text, MaxArray)
		}
		for i := first; i <= last; i += step {
			if seen[i] {
				return nil, Errorf(CodeInvalid, "array %s: index %d is named twice", text, i)
			}
			if len(indices) > 0 && i < indices[len(indices)-1] {
				return nil, Errorf(CodeInvalid, "array %s: index %d comes after %d; write them in ascending order", text, i, indices[len(indices)-1])
			}
			seen[i] = true
			indices = append(indices, i)
		}
	}
	return indices, nil
}

// parseRange reads N, FIRST-LAST or FIRST-LAST:STEP.
func parseRange(text string) (first, last, step int, err error) {
	bad := func(why string) error {
		return Errorf(CodeInvalid, "array %q: %s; write indices such as 0-99, 1,5,9 or 0-1000:10", text, why)
	}
	span, by, stepped := strings.Cut(strings.TrimSpace(text), ":")
	from, to, ranged := strings.Cut(span, "-")
	if !ranged {
		to = from
	}
	step = 1
	for _, number := range []struct {
		text string
		to   *int
	}{{from, &first}, {to, &last}} {
		if *number.to, err = index(number.text); err != nil {
			return 0, 0, 0, bad(err.Error())
		}
	}
	if stepped {
		if step, err = index(by); err != nil || step == 0 || !ranged {
			return 0, 0, 0, bad("a step is a number above 0 behind a range")
		}
	}
	if last < first {
		return 0, 0, 0, bad(fmt.Sprintf("the range ends (%d) before it begins (%d)", last, first))
	}
	return first, last, step, nil
}

// index reads a number that is not negative and has at most nine digits.
func index(text string) (int, error) {
	if text == "" || len(text) > 9 || strings.Trim(text, "0123456789") != "" {
		return 0, fmt.Errorf("%q is not a number from 0 to 999999999", text)
	}
	return strconv.Atoi(text)
}

// Validate reports the first thing that is wrong with the submission, or nil.
func (s *ArraySubmission) Validate() error {
	switch {
	case len(s.Indices) == 0:
		return Errorf(CodeInvalid, "the array has no tasks")
	case len(s.Indices) > MaxArray:
		return Errorf(CodeInvalid, "the array has %d tasks; an array may have %d: submit several arrays", len(s.Indices), MaxArray)
	case len(s.Items) > 0 && len(s.Items) != len(s.Indices):
		return Errorf(CodeInvalid, "the array has %d indices and %d items", len(s.Indices), len(s.Items))
	case s.Spec.Call != nil:
		return Errorf(CodeInvalid, "an array is made of plain tasks and tasks with steps, not of calls of functions")
	}
	bytes := 0
	for i, index := range s.Indices {
		if index < 0 || i > 0 && index <= s.Indices[i-1] {
			return Errorf(CodeInvalid, "the array's index %d is negative, or not above the one before it", index)
		}
		if len(s.Items) > 0 {
			bytes += len(s.Items[i])
		}
	}
	if bytes > MaxItemBytes {
		return Errorf(CodeInvalid, "the array's items have %d bytes together; %d are the limit: pass names of files, or submit several arrays", bytes, MaxItemBytes)
	}
	last := s.Item("", len(s.Indices)-1)
	spec := s.Spec.ForItem(last)
	return spec.Validate()
}

// Item returns what the n-th task of the array is for.
func (s *ArraySubmission) Item(array string, n int) ArrayItem {
	item := ArrayItem{ID: array, Index: s.Indices[n]}
	if len(s.Items) > 0 {
		item.Item = s.Items[n]
	}
	return item
}
