package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
)

// maxReport bounds a callback: a result of 1 MiB as JSON in JSON, and events.
const maxReport = 4 << 20

// Told takes in the report of an agent that has the token.
type Told func(ctx context.Context, token string, report agent.Report) error

// CallbackOutcome is how a callback was answered, for counting.
type CallbackOutcome string

const (
	CallbackAccepted  CallbackOutcome = "accepted"
	CallbackBadToken  CallbackOutcome = "bad_token"
	CallbackOver      CallbackOutcome = "attempt_over" // it has ended, or never was
	CallbackMalformed CallbackOutcome = "malformed"
	CallbackFailed    CallbackOutcome = "failed" // ours; the agent tries again
)

// NewCallbackHandler serves agents. It authenticates by the token of the
// attempt alone, and tells count how each report was answered. Answers have
// status 204; 401 for a wrong token; 410 when the attempt is over; 400 and 413
// for what is no report; 503 when the agent should try again.
func NewCallbackHandler(told Told, over error, count func(CallbackOutcome)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		outcome, status := answer(w, r, told, over)
		count(outcome)
		w.WriteHeader(status)
	})
}

func answer(w http.ResponseWriter, r *http.Request, told Told, over error) (CallbackOutcome, int) {
	if r.Method != http.MethodPost {
		return CallbackMalformed, http.StatusMethodNotAllowed
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || token == "" {
		return CallbackBadToken, http.StatusUnauthorized
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReport))
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return CallbackMalformed, http.StatusRequestEntityTooLarge
		}
		return CallbackFailed, http.StatusBadRequest
	}
	var report agent.Report
	if err := json.Unmarshal(body, &report); err != nil || !report.Valid() {
		return CallbackMalformed, http.StatusBadRequest
	}
	err = told(r.Context(), token, report)
	switch {
	case err == nil:
		return CallbackAccepted, http.StatusNoContent
	case errors.Is(err, over):
		return CallbackOver, http.StatusGone
	case berth.CodeOf(err) == berth.CodeUnauthorized:
		return CallbackBadToken, http.StatusUnauthorized
	}
	return CallbackFailed, http.StatusServiceUnavailable
}
