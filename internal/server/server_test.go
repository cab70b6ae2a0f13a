package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth"
)

// serving starts a server with an API handler, for callers named by their
// token, "role" or "role@infrastructure".
func serving(t *testing.T, change func(*Config, *Server)) (*Server, string, *http.Client) {
	t.Helper()
	dir := t.TempDir()
	authority, err := OpenAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	tlsConfig, err := GeneratedTLS(authority, dir, Names(listener.Addr(), nil), log)
	if err != nil {
		t.Fatal(err)
	}
	s := New()
	c := Config{
		TLS: tlsConfig, Log: log, Metrics: NewMetrics("test", func(context.Context) (Figures, error) { return Figures{}, nil }),
		APIPath: "/api/", API: http.NotFoundHandler(),
		Ready: func(context.Context) error { return nil },
		Authenticate: func(r *http.Request) (context.Context, error) {
			role, where, _ := strings.Cut(TokenOf(r), "@")
			if role == "" {
				return nil, berth.Errorf(berth.CodeUnauthorized, "no token")
			}
			caller := berth.Caller{Name: "ann", Role: berth.Role(role)}
			if where != "" {
				caller.Infrastructures = []string{where}
			}
			return berth.WithCaller(r.Context(), caller), nil
		},
	}
	if change != nil {
		change(&c, s)
	}
	s.Serve(listener, c)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority.PEM)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	t.Cleanup(func() { transport.CloseIdleConnections(); s.Stop() })
	return s, "https://" + listener.Addr().String(), &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

func ask(t *testing.T, client *http.Client, method, url, token string, basic bool) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case token == "":
	case basic:
		request.SetBasicAuth("anyone", token)
	default:
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

func TestTheRegistryIsForRoles(t *testing.T) {
	_, url, client := serving(t, func(c *Config, _ *Server) {
		c.Registry = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			caller, _ := berth.CallerFrom(r.Context())
			fmt.Fprint(w, r.Method, " ", caller.Role)
		})
	})
	for _, test := range []struct {
		method, token string
		status        int
	}{
		{"GET", "", 401}, {"GET", "read", 200}, {"HEAD", "read", 200}, {"POST", "read", 403}, {"PUT", "read", 403}, {"PATCH", "read", 403},
		{"DELETE", "read", 403}, {"PUT", "write", 200}, {"DELETE", "write", 403}, {"DELETE", "admin", 200}, {"OPTIONS", "write", 403}, {"GET", "odd", 403},
	} {
		for _, basic := range []bool{false, true} {
			response, body := ask(t, client, test.method, url+"/v2/a/b", test.token, basic)
			if response.StatusCode != test.status {
				t.Errorf("%s as %q (basic: %t): %d %s, want %d", test.method, test.token, basic, response.StatusCode, body, test.status)
			}
			if challenge := response.Header.Get("WWW-Authenticate"); (challenge == `Basic realm="berth"`) != (test.status == 401) {
				t.Errorf("%s as %q: challenge %q", test.method, test.token, challenge)
			}
		}
	}
}

func TestMetricsAreForWhoMaySeeTheWhole(t *testing.T) {
	_, url, client := serving(t, nil)
	for token, want := range map[string]int{"": 401, "read": 200, "admin": 200, "admin@site-a": 403, "odd": 403} {
		if response, body := ask(t, client, "GET", url+"/metrics", token, false); response.StatusCode != want {
			t.Errorf("as %q: %d %s, want %d", token, response.StatusCode, body, want)
		}
	}
}

func TestReadyzTellsWhyNotWithoutTellingMore(t *testing.T) {
	_, url, client := serving(t, func(c *Config, _ *Server) {
		c.Ready = func(context.Context) error {
			return berth.Errorf(berth.CodeExhausted, "cannot write /secret/path: the disk is full")
		}
	})
	response, body := ask(t, client, "GET", url+"/readyz", "", false)
	if response.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "exhausted") || strings.Contains(body, "/secret/path") {
		t.Errorf("%d %q", response.StatusCode, body)
	}
	if response, _ := ask(t, client, "GET", url+"/healthz", "", false); response.StatusCode != http.StatusOK {
		t.Errorf("healthz: %d", response.StatusCode)
	}
}

func TestCallsThatRunFinishAndStreamsEnd(t *testing.T) {
	began := make(chan string, 2)
	s, url, client := serving(t, func(c *Config, s *Server) {
		c.API = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			began <- r.URL.Path
			if r.URL.Path == "/api/stream" {
				<-s.Ending()
				fmt.Fprint(w, "ended")
				return
			}
			<-s.Ending()
			<-time.After(300 * time.Millisecond)
			fmt.Fprint(w, "finished")
		})
	})
	answers := make(chan string, 2)
	for _, path := range []string{"/api/stream", "/api/unary"} {
		go func() {
			response, err := client.Get(url + path) //nolint:noctx // it ends with the server
			if err != nil {
				answers <- err.Error()
				return
			}
			defer response.Body.Close()
			body, _ := io.ReadAll(response.Body)
			answers <- string(body)
		}()
	}
	<-began
	<-began
	start := time.Now()
	s.Stop()
	if took := time.Since(start); took > finishTimeout {
		t.Errorf("it took %s to stop", took)
	}
	got := <-answers + " " + <-answers
	if got != "ended finished" && got != "finished ended" {
		t.Errorf("answers %q", got)
	}
}

func TestWhatDoesNotFinishIsBrokenOff(t *testing.T) {
	cause := make(chan error, 1)
	began := make(chan bool)
	s, url, client := serving(t, func(c *Config, _ *Server) {
		c.API = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(began)
			<-r.Context().Done()
			cause <- context.Cause(r.Context())
		})
	})
	go func() {
		if response, err := client.Get(url + "/api/x"); err == nil { //nolint:noctx // it ends with the server
			response.Body.Close()
		}
	}()
	<-began
	s.Stop()
	if err := <-cause; !errors.Is(err, berth.ErrEnding) {
		t.Errorf("it was broken off because of %v", err)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	_, url, client := serving(t, nil)
	config := client.Transport.(*http.Transport).TLSClientConfig.Clone()
	config.MinVersion, config.MaxVersion = tls.VersionTLS11, tls.VersionTLS11 //nolint:gosec // that is what is tested
	dialer := tls.Dialer{Config: config}
	if conn, err := dialer.DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "https://")); err == nil {
		conn.Close()
		t.Error("TLS 1.1 was taken")
	}
}
