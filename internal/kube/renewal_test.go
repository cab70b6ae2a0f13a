package kube

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// jwt is a token of the service account berth in the namespace work, without a
// signature that anybody could verify.
func jwt(issued, expires time.Time) string {
	payload, _ := json.Marshal(map[string]any{"sub": "system:serviceaccount:work:berth", "iat": issued.Unix(), "exp": expires.Unix()})
	return "e30." + base64.RawURLEncoding.EncodeToString(payload) + ".c2ln"
}

// shelf keeps tokens in memory.
type shelf struct {
	mu            sync.Mutex
	source, token string
	kept          chan struct{}
}

func (s *shelf) RenewedToken(context.Context, string) (source, token string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.source, s.token, nil
}

func (s *shelf) KeepToken(_ context.Context, _, source, token string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.source, s.token = source, token
	close(s.kept)
	return nil
}

// keeping has a client keep its token until it is stopped.
func keeping(t *testing.T, c *Client) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c.keepToken(ctx) }()
	return func() { cancel(); <-done }
}

func TestATokenIsRenewedWhenHalfOfItsLifeIsOver(t *testing.T) {
	now := time.Now()
	old, next := jwt(now.Add(-40*time.Minute), now.Add(20*time.Minute)), jwt(now, now.Add(time.Hour))
	s := newAPIServer(t, old)
	s.next = next
	path := filepath.Join(t.TempDir(), "kubeconfig")
	writeFile(t, path, kubeconfigText(s.clusterYAML(), "{token: "+old+"}"), 0o600)
	tokens := &shelf{kept: make(chan struct{})}
	var said bytes.Buffer
	options := Options{Tokens: tokens, Log: slog.New(slog.NewTextHandler(&said, nil))}
	c, err := NewClient(configInfra(path), options)
	if err != nil {
		t.Fatal(err)
	}
	stop := keeping(t, c)
	select {
	case <-tokens.kept:
	case <-time.After(20 * time.Second):
		t.Fatal("it was not renewed")
	}
	if err := listPods(t, c); err != nil { // the server takes the new one only
		t.Errorf("after the renewal: %v", err)
	}
	stop()
	if n := s.requests.Load(); n != 1 {
		t.Errorf("%d tokens were asked for", n)
	}
	if out := said.String(); strings.Contains(out, old) || strings.Contains(out, next) {
		t.Errorf("a token is in the log: %s", out)
	}

	// The next process goes on with it, as long as its source is the same.
	again, err := NewClient(configInfra(path), options)
	if err != nil {
		t.Fatal(err)
	}
	if err := listPods(t, again); err != nil {
		t.Errorf("the next process: %v", err)
	}
	writeFile(t, path, kubeconfigText(s.clusterYAML(), "{token: "+jwt(now, now.Add(30*time.Minute))+"}"), 0o600)
	other, err := NewClient(configInfra(path), options)
	if err != nil {
		t.Fatal(err)
	}
	if err := listPods(t, other); !apierrors.IsUnauthorized(err) {
		t.Errorf("another kubeconfig was given the token of the one before: %v", err)
	}
}

func TestATokenThatMayNotBeRenewedIsNotAskedFor(t *testing.T) {
	now := time.Now()
	old := jwt(now.Add(-40*time.Minute), now.Add(20*time.Minute))
	s := newAPIServer(t, old)
	s.denied = map[string]bool{"create serviceaccounts/token": true}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	writeFile(t, path, kubeconfigText(s.clusterYAML(), "{token: "+old+"}"), 0o600)
	said := &signal{text: "may not be renewed", seen: make(chan struct{})}
	c, err := NewClient(configInfra(path), Options{Tokens: &shelf{}, Log: slog.New(slog.NewTextHandler(said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	stop := keeping(t, c)
	select {
	case <-said.seen:
	case <-time.After(20 * time.Second):
		t.Fatal("it was not said")
	}
	stop()
	if n := s.requests.Load(); n != 0 {
		t.Errorf("%d tokens were asked for", n)
	}
}

// signal is closed when a text is written.
type signal struct {
	text string
	once sync.Once
	seen chan struct{}
}

func (s *signal) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(s.text)) {
		s.once.Do(func() { close(s.seen) })
	}
	return len(p), nil
}

func TestReadClaims(t *testing.T) {
	now := time.Now()
	payload := func(text string) string { return "e30." + base64.RawURLEncoding.EncodeToString([]byte(text)) + ".x" }
	for name, token := range map[string]string{
		"an opaque token":          "sha256~abcdef",
		"empty":                    "",
		"three empty parts":        "..",
		"not base64":               "a.!!.c",
		"not JSON":                 payload("hello"),
		"one that does not expire": payload(`{"sub":"system:serviceaccount:work:berth","iat":1}`),
		"a person's":               payload(`{"sub":"jane","iat":1,"exp":2}`),
		"no account":               payload(`{"sub":"system:serviceaccount:work","iat":1,"exp":2}`),
		"over before it began":     payload(`{"sub":"system:serviceaccount:work:berth","iat":3,"exp":2}`),
	} {
		if c, ok := readClaims(token); ok {
			t.Errorf("%s: %+v", name, c)
		}
	}
	c, ok := readClaims(jwt(now, now.Add(time.Hour)))
	if !ok || c.namespace != "work" || c.account != "berth" || c.life() != time.Hour || c.due().Sub(c.issued) != 30*time.Minute {
		t.Errorf("%+v, %v", c, ok)
	}
}

func FuzzReadClaims(f *testing.F) {
	f.Add(jwt(time.Unix(1, 0), time.Unix(2, 0)))
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, token string) {
		if c, ok := readClaims(token); ok && (c.account == "" || !c.expires.After(c.issued)) {
			t.Errorf("%q: %+v", token, c)
		}
	})
}
