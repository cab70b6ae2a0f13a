package rpc

import (
	"context"
	"errors"
	"iter"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
)

var errGone = berth.Errorf(berth.CodeUnavailable, "%w: killed", ErrGone)

// fake is a Service that goes away now and then.
type fake struct {
	berth.Service
	fail    int // so many calls
	keys    []string
	offsets []int64
	chunks  []berth.LogChunk
}

func (f *fake) SubmitTask(_ context.Context, s berth.Submission) (berth.Task, error) {
	f.keys = append(f.keys, s.Key)
	if f.fail--; f.fail >= 0 {
		return berth.Task{}, errGone
	}
	return berth.Task{ID: "t"}, nil
}

// TaskLogs yields one chunk, and is gone then, until the last.
func (f *fake) TaskLogs(_ context.Context, _ string, q berth.LogQuery) iter.Seq2[berth.LogChunk, error] {
	return func(yield func(berth.LogChunk, error) bool) {
		f.offsets = append(f.offsets, q.Offset)
		for i, chunk := range f.chunks {
			if chunk.Offset <= q.Offset {
				continue
			}
			if yield(chunk, nil) && i < len(f.chunks)-1 {
				yield(berth.LogChunk{}, errGone)
			}
			return
		}
	}
}

func joining(f *fake) Join {
	return func(context.Context, berth.Service) (berth.Service, error) { return f, nil }
}

func TestASubmissionKeepsItsKeyWhenItIsMadeAgain(t *testing.T) {
	f := &fake{fail: 3}
	task, err := NewResuming(joining(f), 0).SubmitTask(t.Context(), berth.Submission{})
	if err != nil || task.ID != "t" {
		t.Fatal(task, err)
	}
	if len(f.keys) != 4 || f.keys[0] == "" || f.keys[0] != f.keys[3] {
		t.Errorf("keys %q", f.keys)
	}
}

func TestOutputGoesOnBehindWhatWasShown(t *testing.T) {
	f := &fake{}
	var want []string
	for i := range 5 {
		want = append(want, string(rune('a'+i)))
		f.chunks = append(f.chunks, berth.LogChunk{Attempt: 1, Data: []byte(want[i]), Offset: int64(i + 1)})
	}
	var got []string
	for chunk, err := range NewResuming(joining(f), 0).TaskLogs(t.Context(), "t", berth.LogQuery{Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(chunk.Data))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int64{0, 1, 2, 3, 4}, f.offsets); diff != "" {
		t.Errorf("offsets (-want +got):\n%s", diff)
	}
}

func TestServersThatComeAndGoWithoutAnAnswerAreGivenUp(t *testing.T) {
	f := &fake{fail: 1 << 30}
	began := time.Now()
	_, err := NewResuming(joining(f), 200*time.Millisecond).SubmitTask(t.Context(), berth.Submission{})
	if !errors.Is(err, ErrGone) || berth.CodeOf(err) != berth.CodeUnavailable {
		t.Errorf("error %v", err)
	}
	if took := time.Since(began); took > 5*time.Second || len(f.keys) > 50 {
		t.Errorf("given up after %s and %d tries", took, len(f.keys))
	}
}

func TestAnErrorOfTheServiceIsNotTriedAgain(t *testing.T) {
	calls := 0
	r := NewResuming(func(context.Context, berth.Service) (berth.Service, error) {
		calls++
		return nil, berth.Errorf(berth.CodeUnauthorized, "revoked")
	}, 0)
	if _, err := r.Task(t.Context(), "t"); berth.CodeOf(err) != berth.CodeUnauthorized || calls != 1 {
		t.Errorf("%v after %d tries", err, calls)
	}
}

func TestACallThatIsGivenUpIsNotMadeAgain(t *testing.T) {
	f := &fake{fail: 1 << 30}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := NewResuming(joining(f), 0).SubmitTask(ctx, berth.Submission{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}
