package control

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/engine"
)

const (
	// serverTokenPrefix begins what servers show each other, and no person's token.
	serverTokenPrefix = "berth-server."
	// serverTokenLife is how long such a token is good. Each request has one of
	// its own; what is left is for clocks that differ.
	serverTokenLife = 5 * time.Minute
)

// serverToken is what one server tells another about a request that it passes
// on: who asked, or the token of the agent that told.
type serverToken struct {
	Caller berth.Caller `json:"caller"`
	Agent  string       `json:"agent,omitempty"`
	At     time.Time    `json:"at"`
}

// token signs what another server is told. Both know the store's key.
func (f *fleet) token(t serverToken) (string, error) {
	t.At = time.Now().UTC()
	data, err := json.Marshal(t)
	if err != nil {
		return "", err
	}
	return serverTokenPrefix + base64.RawURLEncoding.EncodeToString(data) + "." + base64.RawURLEncoding.EncodeToString(f.sign(data)), nil
}

func (f *fleet) sign(data []byte) []byte {
	key := hmac.New(sha256.New, f.host.store.AgentKey())
	key.Write([]byte("berth server to server"))
	mac := hmac.New(sha256.New, key.Sum(nil))
	mac.Write(data)
	return mac.Sum(nil)
}

// read verifies what another server told. ours says that a token claims to be a server's.
func (f *fleet) read(token string) (t serverToken, ours bool, err error) {
	rest, ours := strings.CutPrefix(token, serverTokenPrefix)
	if !ours || f == nil {
		return t, false, nil
	}
	bad := berth.Errorf(berth.CodeUnauthorized, "the token of another server is not good: do both share one database, and are their clocks right?")
	payload, signature, _ := strings.Cut(rest, ".")
	data, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return t, true, bad
	}
	mac, err := base64.RawURLEncoding.DecodeString(signature)
	if err != nil || !hmac.Equal(mac, f.sign(data)) {
		return t, true, bad
	}
	if err := json.Unmarshal(data, &t); err != nil || time.Since(t.At).Abs() > serverTokenLife {
		return t, true, bad
	}
	return t, true, nil
}

type forwardedKey struct{}

// forwarded reports whether a request was passed on by another server: it goes
// no further.
func forwarded(ctx context.Context) bool { return ctx.Value(forwardedKey{}) != nil }

// authenticate finds the caller of a request that another server passed on; ok
// is false for every other.
func (f *fleet) authenticate(ctx context.Context, token string) (_ context.Context, ok bool, err error) {
	t, ours, err := f.read(token)
	if !ours || err != nil {
		return nil, ours, err
	}
	if t.Agent != "" {
		return nil, true, berth.Errorf(berth.CodeUnauthorized, "an agent may report, and nothing else")
	}
	return berth.WithCaller(context.WithValue(ctx, forwardedKey{}, true), t.Caller), true, nil
}

// told passes the report of an agent on to the server that holds its task's
// infrastructure; ok is false where that is this one. A report that another
// server passed on is this one's, or nobody's.
func (f *fleet) told(ctx context.Context, token *string, report *agent.Report) (ok bool, err error) {
	if f == nil {
		return false, nil
	}
	t, passedOn, err := f.read(*token)
	if err != nil {
		return true, err
	}
	if passedOn {
		*token = t.Agent
	}
	if !f.host.agents.keys.Valid(*token, report.Task, report.Pod) {
		return false, nil // which is told to it
	}
	life, err := f.host.store.Life(ctx, report.Task)
	if berth.CodeOf(err) == berth.CodeNotFound && err != nil {
		return true, engine.ErrOver
	}
	if err != nil {
		return true, err
	}
	infrastructure := life.Task.Infrastructure
	if f.keeper.Reconciles(infrastructure) {
		return false, nil
	}
	server, known, _ := f.keeper.Holder(infrastructure)
	if passedOn || !known || server.ID == f.id {
		return true, elsewhere(infrastructure)
	}
	return true, f.passOn(ctx, server, *token, report)
}

func (f *fleet) passOn(ctx context.Context, server berth.Server, agentToken string, report *agent.Report) error {
	token, err := f.token(serverToken{Agent: agentToken})
	if err != nil {
		return err
	}
	body, err := json.Marshal(report)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+CallbackPath, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/json")
	transport := f.transport(server)
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request)
	if err != nil {
		return berth.Errorf(berth.CodeUnavailable, "cannot pass a report on: %w", err)
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	switch response.StatusCode {
	case http.StatusNoContent:
		return nil
	case http.StatusGone:
		return engine.ErrOver
	}
	return berth.Errorf(berth.CodeUnavailable, "cannot pass a report on: %s answered %s", server.URL, response.Status)
}
