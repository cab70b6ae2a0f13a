//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/berth-run/berth/internal/childtest"
)

// redisPassword is hard to overlook in a log or an error where it has no place.
const redisPassword = "hunter2-of-redis-never-shown"

// redis is a real Redis server of a test's own, on the address by which pods
// reach this machine.
type redis struct {
	t       *testing.T
	address string // host:port
	cmd     *exec.Cmd
	ended   <-chan struct{} // closed when it has
}

func newRedis(t *testing.T) *redis {
	t.Helper()
	host := hostIP(t)
	for range 5 { // somebody else may take a port that was free
		r := &redis{t: t, address: net.JoinHostPort(host, freePort(t, host))}
		if r.start() {
			t.Cleanup(r.kill)
			return r
		}
	}
	t.Fatal("Redis found no free port")
	return nil
}

// start starts the server, which is empty: it keeps nothing on disk. It reports
// false where the server ended instead of answering.
func (r *redis) start() bool {
	r.t.Helper()
	host, port, err := net.SplitHostPort(r.address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.cmd = exec.CommandContext(context.Background(), "redis-server", "--bind", host, "--port", port, "--requirepass", redisPassword, "--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction")
	r.cmd.Dir = r.t.TempDir()
	ended, err := childtest.Start(r.cmd, syscall.SIGKILL)
	if err != nil {
		r.t.Fatalf("redis-server: %v (hack/juicefs.sh installs it)", err)
	}
	r.ended = ended
	waitFor(r.t, "Redis", 20*time.Second, func() bool { return r.hasEnded() || r.answers() })
	return !r.hasEnded()
}

func (r *redis) hasEnded() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// answers reports whether it is Redis that listens.
func (r *redis) answers() bool {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(background, "tcp", r.address)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	_, err = conn.Write([]byte("PING\r\n"))
	answer := make([]byte, len("-NOAUTH"))
	if err == nil {
		_, err = io.ReadFull(conn, answer)
	}
	return err == nil && string(answer) == "-NOAUTH"
}

func (r *redis) kill() {
	_ = r.cmd.Process.Kill()
	<-r.ended
}

// url is a database of the server; a password stands in it as a reference.
func (r *redis) url(number int) string {
	return fmt.Sprintf("redis://:${secret:redis}@%s/%d", r.address, number)
}
