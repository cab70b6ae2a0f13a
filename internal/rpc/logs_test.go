package rpc

import (
	"context"
	"iter"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
)

// logged has a log, and notes what was asked of it.
type logged struct {
	berth.Service
	asked  berth.LogQuery
	chunks []berth.LogChunk
}

func (l *logged) TaskLogs(_ context.Context, _ string, q berth.LogQuery) iter.Seq2[berth.LogChunk, error] {
	l.asked = q
	return func(yield func(berth.LogChunk, error) bool) {
		for _, c := range l.chunks {
			if !yield(c, nil) {
				return
			}
		}
	}
}

// What is asked of a log, and what comes of it, is the same over the network.
func TestALogIsTheSameOverTheNetwork(t *testing.T) {
	service := &logged{chunks: []berth.LogChunk{
		{Attempt: 2, Stream: berth.LogStdout, Data: []byte("out\n"), Offset: 40},
		{Attempt: 2, Stream: berth.LogStderr, Data: []byte("\x00\xff\n"), Offset: 80},
		{Attempt: 2, Gap: "output is missing", Offset: 120},
		{Attempt: 2, Data: []byte("no newline"), Offset: 160},
	}}
	mux := http.NewServeMux()
	mux.Handle(NewHandler(service, HandlerOptions{Authenticate: onlyAnn}))
	server := httptest.NewUnstartedServer(mux)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	query := berth.LogQuery{
		Attempt: 2, Offset: 7, Follow: true, Tail: 3, Step: 4, Stream: berth.LogStderr, Timestamps: true, Grep: "a|b",
		Since: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
	}
	var got []berth.LogChunk
	for chunk, err := range NewClient(server.Client(), server.URL, "ann").TaskLogs(t.Context(), "t", query) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, chunk)
	}
	if diff := cmp.Diff(query, service.asked); diff != "" {
		t.Errorf("what was asked (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(service.chunks, got); diff != "" {
		t.Errorf("what came (-want +got):\n%s", diff)
	}
}
