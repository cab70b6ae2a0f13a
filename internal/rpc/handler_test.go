package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/berth-run/berth"
	pb "github.com/berth-run/berth/internal/rpc/berthv1"
	"github.com/berth-run/berth/internal/rpc/berthv1/berthv1connect"
)

// told answers with what the caller is called, and streams until it is ended.
type told struct{ berth.Service }

func (told) Task(ctx context.Context, id string) (berth.Task, error) {
	caller, _ := berth.CallerFrom(ctx)
	return berth.Task{ID: id, Owner: caller.Name}, nil
}

func (told) WatchTask(ctx context.Context, id string) iter.Seq2[berth.Task, error] {
	return func(yield func(berth.Task, error) bool) {
		if yield(berth.Task{ID: id}, nil) {
			<-ctx.Done()
			yield(berth.Task{}, ctx.Err())
		}
	}
}

func handling(t *testing.T, o HandlerOptions) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(NewHandler(told{}, o))
	return serving(t, mux)
}

func serving(t *testing.T, handler http.Handler) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

func onlyAnn(r *http.Request) (context.Context, error) {
	if r.Header.Get("Authorization") != "Bearer ann" {
		return nil, berth.Errorf(berth.CodeUnauthorized, "the token is wrong")
	}
	return berth.WithCaller(r.Context(), berth.Caller{Name: "ann", Role: berth.RoleWrite}), nil
}

func TestEachProtocolIsAuthenticatedAndAnswered(t *testing.T) {
	server := handling(t, HandlerOptions{Authenticate: onlyAnn})
	for name, option := range map[string]connect.ClientOption{"connect": connect.WithClientOptions(), "gRPC": connect.WithGRPC(), "gRPC-Web": connect.WithGRPCWeb(), "JSON": connect.WithProtoJSON()} {
		good := berthv1connect.NewBerthServiceClient(server.Client(), server.URL, option, connect.WithInterceptors(bearer("ann")))
		answer, err := good.GetTask(t.Context(), connect.NewRequest(&pb.GetTaskRequest{Id: "x"}))
		if err != nil || answer.Msg.GetTask().GetOwner() != "ann" {
			t.Errorf("%s: %v, %v", name, answer, err)
		}
		wrong := berthv1connect.NewBerthServiceClient(server.Client(), server.URL, option, connect.WithInterceptors(bearer("eve")))
		if _, err := wrong.GetTask(t.Context(), connect.NewRequest(&pb.GetTaskRequest{Id: "x"})); connect.CodeOf(err) != connect.CodeUnauthenticated || !strings.Contains(err.Error(), "the token is wrong") {
			t.Errorf("%s with a wrong token: %v", name, err)
		}
		stream, err := wrong.WatchTask(t.Context(), connect.NewRequest(&pb.WatchTaskRequest{Id: "x"}))
		if err == nil {
			for stream.Receive() {
				t.Errorf("%s: a stream with a wrong token gives something", name)
			}
			err = stream.Err()
			stream.Close()
		}
		if connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("%s: a stream with a wrong token: %v", name, err)
		}
	}
}

func TestPlainJSONIsEnough(t *testing.T) {
	server := handling(t, HandlerOptions{Authenticate: onlyAnn})
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/berth.v1.BerthService/GetTask", strings.NewReader(`{"id": "x"}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer ann")
	response, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK || !bytes.Contains(body, []byte(`"owner":"ann"`)) {
		t.Errorf("%d %s %v", response.StatusCode, body, err)
	}
}

func TestWhenTheServerEndsStreamsEndAndNewCallsAreSentOn(t *testing.T) {
	ending := make(chan struct{})
	counted := make(chan string, 10)
	server := handling(t, HandlerOptions{Ending: ending, Observe: func(method, code string, _ time.Duration) { counted <- method + " " + code }})
	client := NewClient(server.Client(), server.URL, "")
	for task, err := range client.WatchTask(t.Context(), "x") {
		switch {
		case err == nil && task.ID == "x":
			close(ending)
		case !errors.Is(err, ErrGone):
			t.Errorf("the stream ended with %v", err)
		}
	}
	if got := <-counted; got != "WatchTask unavailable" {
		t.Errorf("counted %q", got)
	}
	if _, err := client.Task(t.Context(), "x"); !errors.Is(err, ErrGone) {
		t.Errorf("a new call: %v", err)
	}
}

func TestALargeRequestIsRefused(t *testing.T) {
	server := handling(t, HandlerOptions{})
	client := NewClient(server.Client(), server.URL, "")
	_, err := client.Task(t.Context(), strings.Repeat("x", maxRequest+1))
	if berth.CodeOf(err) != berth.CodeExhausted {
		t.Errorf("error %v", err)
	}
}

func TestWhatIsNoServerOfBerthIsTold(t *testing.T) {
	status, body := http.StatusOK, "<html>welcome</html>"
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	defer server.Close()
	checked := *server.Client()
	checked.Transport = CheckAnswers(checked.Transport)
	client := NewClient(&checked, server.URL, "")
	for _, status = range []int{200, 302, 401, 404, 405} {
		if _, err := client.Info(t.Context()); berth.CodeOf(err) != berth.CodeInvalid || !strings.Contains(err.Error(), "not a server of Berth") {
			t.Errorf("status %d: %v", status, err)
		}
	}
	for _, status = range []int{502, 503, 504} {
		if _, err := client.Info(t.Context()); !errors.Is(err, ErrGone) {
			t.Errorf("a proxy before a server that is away, status %d: %v", status, err)
		}
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	client = NewClient(&checked, strings.Replace(plain.URL, "http:", "https:", 1), "")
	if _, err := client.Info(t.Context()); berth.CodeOf(err) != berth.CodeInvalid {
		t.Errorf("HTTP without TLS: %v", err)
	}
}
