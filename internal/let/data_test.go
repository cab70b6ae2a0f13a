package let

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/agent"
	"github.com/berth-run/berth/internal/datafs"
)

// serving starts an agent that serves a mount, and returns a client of it.
func serving(t *testing.T, dfs *agent.DFS, idle time.Duration) (*running, *datafs.Client) {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close()
	r := begin(t, &agent.Order{DFS: dfs, Data: &agent.Data{Port: port, TokenSum: datafs.TokenSum("token"), Idle: idle}})
	client := datafs.NewClient(func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(port))
	}, "token")
	t.Cleanup(client.Close)
	return r, client
}

func answers(t *testing.T, client *datafs.Client) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := client.Ping(t.Context())
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-time.After(time.Millisecond)
	}
}

// It serves while somebody asks, and ends well a while after the last.
func TestTheServerOfSharedFilesEndsWhenNobodyAsks(t *testing.T) {
	t.Parallel()
	mount := shared(t)
	r, client := serving(t, &agent.DFS{Path: mount}, time.Second)
	answers(t, client)
	put, err := client.Put(t.Context(), "new", berth.DataPut{}, strings.NewReader("x"))
	if err != nil || put.Path != mount+"/new" {
		t.Fatalf("%+v, %v", put, err)
	}
	code, c := r.end()
	if code != 0 || c == nil || c.Fault != nil {
		t.Errorf("exit code %d, %+v", code, c)
	}
	if _, err := os.Stat(filepath.Join(mount, ".berth")); err == nil {
		t.Error("it has a working folder, which it doesn't need")
	}
}

// A mount that went and came back is served again: nothing of before is held.
func TestTheServerOfSharedFilesFollowsTheMount(t *testing.T) {
	t.Parallel()
	mount := shared(t)
	_, client := serving(t, &agent.DFS{Path: mount}, patience)
	answers(t, client)
	if err := os.Rename(mount, mount+"-gone"); err != nil {
		t.Fatal(err)
	}
	for _, err := range client.List(t.Context(), ".", false) {
		if berth.CodeOf(err) != berth.CodeNotFound {
			t.Errorf("without its mount: %v", err)
		}
	}
	if err := os.Rename(mount+"-gone", mount); err != nil {
		t.Fatal(err)
	}
	listed := 0
	for _, err := range client.List(t.Context(), ".", false) {
		if err != nil {
			t.Error(err)
		}
		listed++
	}
	if listed != 2 {
		t.Errorf("%d entries", listed)
	}
}

// What is told to end does, at once; what can't serve says why.
func TestTheServerOfSharedFilesEndsAsItIsTold(t *testing.T) {
	t.Parallel()
	r, client := serving(t, &agent.DFS{Path: shared(t)}, patience)
	answers(t, client)
	r.signal(syscall.SIGTERM)
	if code, c := r.end(); code != 128+int(syscall.SIGTERM) || c == nil || !c.Deferred {
		t.Errorf("exit code %d, %+v", code, c)
	}
	r, _ = serving(t, &agent.DFS{Path: "/nosuch/mount"}, patience)
	if _, c := r.end(); c == nil || c.Fault == nil || c.Fault.Cause != berth.CauseMountFailed || !strings.Contains(c.Fault.Summary, "/nosuch/mount") {
		t.Errorf("%+v", c)
	}
}
