package client

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/rpc"
)

func TestOpenAndDialGiveTheSameService(t *testing.T) {
	dir := t.TempDir()
	embedded, err := Open(t.Context(), Config{Infra: filepath.Join(dir, "infra.yml"), Data: filepath.Join(dir, "data")})
	if err != nil {
		t.Fatal(err)
	}
	defer embedded.Close()
	want, err := embedded.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	mux := http.NewServeMux()
	mux.Handle(rpc.NewHandler(embedded, rpc.HandlerOptions{}))
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	defer server.Close()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}

	for name, dial := range map[string]func() (berth.Service, error){
		"https": func() (berth.Service, error) { return Dial(server.URL, "secret", WithCAFile(ca)) },
		"unix":  func() (berth.Service, error) { return Dial("unix://"+filepath.Join(dir, "data"), "") },
	} {
		service, err := dial()
		if err != nil {
			t.Fatal(name, err)
		}
		got, err := service.Info(t.Context())
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, want)
		}
		if _, err := service.Task(t.Context(), "none"); berth.CodeOf(err) != berth.CodeNotFound {
			t.Errorf("%s: an unknown task: %v", name, err)
		}
		service.Close()
	}

	untrusted, err := Dial(server.URL, "secret")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := untrusted.Info(t.Context()); berth.CodeOf(err) != berth.CodeUnavailable {
		t.Errorf("a certificate that nobody vouches for: %v", err)
	}
	wrong, err := Dial(server.URL, "guessed", WithCAFile(ca))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wrong.Info(t.Context()); err == nil {
		t.Error("a wrong token was let in")
	}
}

func TestDialRefusesWhatWouldTellTheToken(t *testing.T) {
	for _, address := range []string{"http://server.example:50052", "server.example:50052", "ftp://server.example", "", "https://"} {
		if _, err := Dial(address, "secret"); berth.CodeOf(err) != berth.CodeInvalid {
			t.Errorf("%q: %v", address, err)
		}
	}
}
