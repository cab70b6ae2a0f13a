package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/rpc/berthv1/berthv1connect"
)

// refuses refuses every submission but those without a preflight.
type refuses struct{ berth.Service }

var refusedFor = &berth.Diagnosis{
	Cause: berth.CauseQuotaExceeded, Summary: "quota team has 4 of cpu in all, and 8 is asked for.",
	Evidence: []berth.Evidence{{Source: "API server, HTTP 403", Text: "exceeded quota"}},
	Remedy:   berth.Remedy{Text: "use --cpu 4 or less", By: berth.RemedyByUser}, Since: time.Date(2026, 3, 1, 10, 5, 0, 0, time.UTC),
}

func (refuses) SubmitTask(_ context.Context, s berth.Submission) (berth.Task, error) {
	if s.NoPreflight {
		return berth.Task{ID: "x"}, nil
	}
	return berth.Task{}, berth.Refused("here", refusedFor)
}

func TestARefusedSubmissionKeepsItsDiagnosis(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle(NewHandler(refuses{}, HandlerOptions{}))
	server := serving(t, mux)
	for name, option := range map[string]connect.ClientOption{"connect": connect.WithClientOptions(), "gRPC": connect.WithGRPC(), "gRPC-Web": connect.WithGRPCWeb(), "JSON": connect.WithProtoJSON()} {
		client := NewClient(server.Client(), server.URL, "")
		client.rpc = berthv1connect.NewBerthServiceClient(server.Client(), server.URL, option)
		_, err := client.SubmitTask(t.Context(), berth.Submission{})
		var told *berth.Error
		if !errors.As(err, &told) || told.Code != berth.CodeInvalid || !strings.Contains(told.Message, "8 is asked for") {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(refusedFor, told.Diagnosis); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if task, err := client.SubmitTask(t.Context(), berth.Submission{NoPreflight: true}); err != nil || task.ID != "x" {
			t.Errorf("%s: without a preflight: %v, %v", name, task.ID, err)
		}
	}
}

// Whoever speaks plain JSON reads the diagnosis in the error's details.
func TestARefusedSubmissionIsExplainedInPlainJSON(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle(NewHandler(refuses{}, HandlerOptions{}))
	server := serving(t, mux)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/berth.v1.BerthService/SubmitTask", bytes.NewBufferString(`{"spec": {"image": "busybox"}}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var body struct {
		Code    string
		Details []struct {
			Type  string
			Debug struct{ Cause, Summary, Remedy string }
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusBadRequest || body.Code != "invalid_argument" || len(body.Details) != 1 || body.Details[0].Type != "berth.v1.Diagnosis" || body.Details[0].Debug.Cause != "QuotaExceeded" {
		t.Errorf("%d %+v", response.StatusCode, body)
	}
}
