package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

var errOver = errors.New("the attempt is over")

// tellAll takes the reports of one attempt, whose token is "right".
func tellAll(_ context.Context, token string, r agent.Report) error {
	switch {
	case token != "right":
		return berth.Errorf(berth.CodeUnauthorized, "wrong token")
	case r.Attempt > 1:
		return errOver
	case r.Task == "unlucky":
		return errors.New("the store is full")
	}
	return nil
}

func reportOf(task string, attempt int) string {
	data, err := json.Marshal(agent.Report{Task: task, Attempt: attempt, Pod: "p", Events: []agent.Event{{Seq: 1, Type: berth.EventReady, At: time.Unix(1, 0)}}})
	if err != nil {
		panic(err)
	}
	return string(data)
}

func TestEachReportIsAnsweredAndCounted(t *testing.T) {
	for name, tt := range map[string]struct {
		method, token, body string
		status              int
		counted             CallbackOutcome
	}{
		"good":             {"POST", "right", reportOf("t", 1), http.StatusNoContent, CallbackAccepted},
		"another token":    {"POST", "wrong", reportOf("t", 1), http.StatusUnauthorized, CallbackBadToken},
		"no token":         {"POST", "", reportOf("t", 1), http.StatusUnauthorized, CallbackBadToken},
		"an ended attempt": {"POST", "right", reportOf("t", 2), http.StatusGone, CallbackOver},
		"our own failure":  {"POST", "right", reportOf("unlucky", 1), http.StatusServiceUnavailable, CallbackFailed},
		"no JSON":          {"POST", "right", "{", http.StatusBadRequest, CallbackMalformed},
		"no report":        {"POST", "right", "{}", http.StatusBadRequest, CallbackMalformed},
		"too large":        {"POST", "right", strings.Repeat(" ", maxReport+1), http.StatusRequestEntityTooLarge, CallbackMalformed},
		"a look":           {"GET", "right", "", http.StatusMethodNotAllowed, CallbackMalformed},
	} {
		var counted []CallbackOutcome
		handler := NewCallbackHandler(tellAll, errOver, func(o CallbackOutcome) { counted = append(counted, o) })
		request := httptest.NewRequestWithContext(t.Context(), tt.method, "/", strings.NewReader(tt.body))
		if tt.token != "" {
			request.Header.Set("Authorization", "Bearer "+tt.token)
		}
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request)
		if answer.Code != tt.status || len(counted) != 1 || counted[0] != tt.counted {
			t.Errorf("%s: %d, counted %v", name, answer.Code, counted)
		}
	}
}

// Whatever comes, what is passed on is a report that is well formed, and each
// answer is one that agents understand.
func FuzzCallback(f *testing.F) {
	f.Add("right", []byte(reportOf("t", 1)))
	f.Add("wrong", []byte(`{"task":"t","attempt":1,"pod":"p","events":[{"type":"Completed","completion":{"exitCode":0,"result":{"a":[1]}}}]}`))
	f.Add("", []byte(`[]`))
	f.Fuzz(func(t *testing.T, token string, body []byte) {
		told := func(ctx context.Context, token string, r agent.Report) error {
			if !r.Valid() || token == "" {
				t.Errorf("passed on: %+v", r)
			}
			return tellAll(ctx, token, r)
		}
		request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", bytes.NewReader(body))
		request.Header.Set("Authorization", "Bearer "+token)
		answer := httptest.NewRecorder()
		NewCallbackHandler(told, errOver, func(CallbackOutcome) {}).ServeHTTP(answer, request)
		switch answer.Code {
		case http.StatusNoContent, http.StatusUnauthorized, http.StatusGone, http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusServiceUnavailable:
		default:
			t.Errorf("answered %d", answer.Code)
		}
	})
}
