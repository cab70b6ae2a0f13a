package control

import (
	"context"
	"encoding/base64"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/engine"
	"github.com/berth-run/berth/internal/pgtest"
	"github.com/berth-run/berth/internal/rpc"
)

// awayCluster is a kubeconfig of a cluster that nobody answers for.
const awayCluster = `apiVersion: v1
kind: Config
current-context: c
clusters:
- name: c
  cluster:
    server: https://127.0.0.1:1
    insecure-skip-tls-verify: true
users:
- name: u
  user:
    token: t
contexts:
- name: c
  context:
    cluster: c
    user: u
    namespace: somewhere
`

// serverOf starts a server on a database, with the infrastructures one and two.
func serverOf(t *testing.T, address string) *Server {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"kubeconfig": awayCluster,
		"infra.yml": `infrastructures:
  one: {kind: kube, insecure_skip_tls_verify: true, credentials: {mechanism: config, path: ./kubeconfig}}
  two: {kind: kube, insecure_skip_tls_verify: true, credentials: {mechanism: config, path: ./kubeconfig}}
`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := OpenServer(t.Context(), ServerConfig{
		Config: Config{InfraPath: filepath.Join(dir, "infra.yml"), DataDir: filepath.Join(dir, "data"), Database: berth.Secret(address), Version: "test", Log: slog.New(slog.DiscardHandler)},
		Listen: "127.0.0.1:0",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// twoServers share a database; each has one infrastructure, the first's first.
func twoServers(t *testing.T) (a, b *Host, of [2]string) {
	t.Helper()
	address := pgtest.New(t).Database(t)
	a, b = serverOf(t, address).hosting.host, serverOf(t, address).hosting.host
	eventually(t, "each has one infrastructure", func() bool {
		for _, one := range []string{"one", "two"} {
			other := map[string]string{"one": "two", "two": "one"}[one]
			if a.fleet.keeper.Reconciles(one) && b.fleet.keeper.Reconciles(other) {
				of = [2]string{one, other}
				server, known, _ := a.fleet.keeper.Holder(other)
				return known && server.ID == b.fleet.id
			}
		}
		return false
	})
	return a, b, of
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not in time: " + what)
		}
	}
}

// launched stores a task whose pod runs, as its infrastructure's holder would.
func launched(t *testing.T, h *Host, id, infrastructure string) *berth.Life {
	t.Helper()
	now := time.Now()
	life, events := berth.NewLife(id, "ann", "key-"+id, berth.TaskSpec{Image: "busybox", Infrastructure: infrastructure, Steps: []berth.Step{{Name: "only", Run: "true"}}}, now)
	events = append(events, life.Admit(now)...)
	events = append(events, life.Seen("uid-"+id, false, now)...)
	if err := h.store.Commit(t.Context(), []berth.Change{{Life: life, Events: events, New: true}}); err != nil {
		t.Fatal(err)
	}
	return life
}

// The report of an agent reaches whoever holds its task, whichever server the
// agent found.
func TestReportsArePassedOnToTheHolder(t *testing.T) {
	a, b, of := twoServers(t)
	life := launched(t, b, "t1", of[1])
	// The holder takes the task up as one that an earlier process left.
	b.drop(of[1])
	if err := b.takeUp(t.Context(), of[1]); err != nil {
		t.Fatal(err)
	}
	pod := life.Current().Pod
	report := agent.Report{Task: "t1", Attempt: 1, Pod: pod, Events: []agent.Event{{Seq: 1, Type: berth.EventReady, At: time.Now()}}}
	token := a.agents.keys.Token("t1", pod)
	if err := a.Told(t.Context(), token, report); err != nil {
		t.Fatalf("passed on: %v", err)
	}
	stored, err := a.store.Life(t.Context(), "t1")
	if err != nil || stored.Current().AgentSeq != 1 {
		t.Errorf("stored: %+v, %v", stored, err)
	}
	if err := a.Told(t.Context(), "another", report); berth.CodeOf(err) != berth.CodeUnauthorized {
		t.Errorf("with a wrong token: %v", err)
	}
	report.Task = "never"
	if err := a.Told(t.Context(), a.agents.keys.Token("never", pod), report); err != engine.ErrOver { //nolint:errorlint // nobody wraps it
		t.Errorf("of a task that there never was: %v", err)
	}
	// What another server passed on goes no further: the two may disagree.
	report.Task = "t1"
	passed, err := a.fleet.token(serverToken{Agent: token})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Told(t.Context(), passed, report); berth.CodeOf(err) != berth.CodeUnavailable {
		t.Errorf("passed on twice: %v", err)
	}
}

func TestRequestsArePassedOnWithTheirCaller(t *testing.T) {
	a, b, of := twoServers(t)
	launched(t, b, "t1", of[1])
	as := func(name string, role berth.Role) context.Context {
		return berth.WithCaller(t.Context(), berth.Caller{Name: name, Role: role})
	}
	if task, err := a.service().CancelTask(as("ann", berth.RoleRead), "t1"); berth.CodeOf(err) != berth.CodeForbidden {
		t.Errorf("a reader cancelled: %+v, %v", task, err)
	}
	if _, err := a.service().CancelTask(as("bob", berth.RoleWrite), "t1"); berth.CodeOf(err) != berth.CodeNotFound {
		t.Errorf("another's task: %v", err)
	}
	if task, err := a.service().Task(as("ann", berth.RoleRead), "t1"); err != nil || task.Stale == nil {
		t.Errorf("the holder knows that its cluster is away: %+v, %v", task, err)
	}
	list, err := a.service().Infrastructures(as("ann", berth.RoleAdmin))
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, i := range list {
		want := map[string]string{of[0]: a.config.Self.URL, of[1]: b.config.Self.URL}[i.Name]
		if i.Holder == nil || *i.Holder != want || i.State != berth.InfraUnreachable {
			t.Errorf("%+v, %v", i, i.Holder)
		}
	}
}

// A token of one server is one of all, and what is under way with it anywhere
// ends when it is revoked.
func TestARevokedTokenEndsWhatIsUnderWayOnEveryServer(t *testing.T) {
	a, b, _ := twoServers(t)
	token, err := a.CreateToken(t.Context(), berth.TokenRequest{Name: "ann", Role: berth.RoleRead})
	if err != nil {
		t.Fatal(err)
	}
	known, err := b.Authenticate(t.Context(), token.Secret.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	ctx, done := b.sessions.begin(t.Context(), known)
	defer done()
	if err := a.RevokeToken(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ctx.Done():
		if berth.CodeOf(context.Cause(ctx)) != berth.CodeUnauthorized {
			t.Errorf("ended by %v", context.Cause(ctx))
		}
	case <-time.After(20 * time.Second):
		t.Error("a request with it goes on")
	}
}

func TestATokenOfAServerIsGoodForOneStoreAndAWhile(t *testing.T) {
	a, b, _ := twoServers(t)
	caller := berth.Caller{Name: "ann", Role: berth.RoleWrite, Infrastructures: []string{"one"}}
	good, err := a.fleet.token(serverToken{Caller: caller})
	if err != nil {
		t.Fatal(err)
	}
	ctx, ours, err := b.fleet.authenticate(t.Context(), good)
	if err != nil || !ours || !forwarded(ctx) {
		t.Fatalf("%v, %v", ours, err)
	}
	if got, _ := berth.CallerFrom(ctx); got.Name != "ann" || got.Role != berth.RoleWrite || !got.MayUse("one") || got.MayUse("two") {
		t.Errorf("%+v", got)
	}
	sealed := func(text string) string {
		return serverTokenPrefix + base64.RawURLEncoding.EncodeToString([]byte(text)) + "." + base64.RawURLEncoding.EncodeToString(a.fleet.sign([]byte(text)))
	}
	payload, signature, _ := strings.Cut(strings.TrimPrefix(good, serverTokenPrefix), ".")
	forAgent, err := a.fleet.token(serverToken{Agent: "t"})
	if err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{
		"altered":          serverTokenPrefix + base64.RawURLEncoding.EncodeToString([]byte(`{"caller":{"Name":"ann","Role":"admin"}}`)) + "." + signature,
		"without its seal": serverTokenPrefix + payload,
		"old":              sealed(`{"caller":{"Name":"ann","Role":"admin"},"at":"` + time.Now().Add(-time.Hour).UTC().Format(time.RFC3339) + `"}`),
		"of the future":    sealed(`{"caller":{"Name":"ann","Role":"admin"},"at":"` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + `"}`),
		"no JSON":          sealed(`berth`),
		"an agent's":       forAgent,
		"empty":            serverTokenPrefix,
	} {
		if _, ours, err := b.fleet.authenticate(t.Context(), token); !ours || berth.CodeOf(err) != berth.CodeUnauthorized {
			t.Errorf("%s: %v, %v", name, ours, err)
		}
	}
	if _, ours, _ := b.fleet.authenticate(t.Context(), "berth_of-a-person"); ours {
		t.Error("a person's token is taken for a server's")
	}
	// A server that has its store for itself knows no other.
	alone := &Host{}
	if _, ours, _ := alone.fleet.authenticate(t.Context(), good); ours {
		t.Error("a server alone takes a server's token")
	}
	// The same over the network, with another database's key.
	c := serverOf(t, pgtest.New(t).Database(t)).hosting.host
	client := rpc.NewClient(a.fleet.httpClient(c.config.Self), c.config.Self.URL, good)
	if _, err := client.Info(t.Context()); berth.CodeOf(err) != berth.CodeUnauthorized {
		t.Errorf("another store's server answers: %v", err)
	}
}

// A data directory whose store is in a database begins no other.
func TestADataDirectoryOfADatabaseBeginsNoFile(t *testing.T) {
	address := pgtest.New(t).Database(t)
	s := serverOf(t, address)
	dir, infra := s.hosting.host.config.DataDir, s.hosting.host.config.InfraPath
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), Config{InfraPath: infra, DataDir: dir, Version: "test", Log: slog.New(slog.DiscardHandler)})
	if berth.CodeOf(err) != berth.CodeConflict || !strings.Contains(err.Error(), "--database") || strings.Contains(err.Error(), pgtest.Password) {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "berth.db")); err == nil {
		t.Error("it was begun")
	}
}
