package store

import (
	"bytes"
	"context"
	"net"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/pgtest"
)

// cutter passes connections on to a database, and cuts one where it is told to.
type cutter struct {
	to string

	mu     sync.Mutex
	marker []byte // the next request that contains it is cut
	answer bool   // after it was carried out: the answer is lost
	cuts   int
	mute   []net.Conn // connections that nobody answers
	muting int        // of the next
}

func newCutter(t *testing.T, address string) (*cutter, string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c := &cutter{to: u.Host}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go c.pass(conn)
		}
	}()
	u.Host = l.Addr().String()
	return c, u.String()
}

func (c *cutter) arm(marker string, answer bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.marker, c.answer = []byte(marker), answer
}

func (c *cutter) pass(client net.Conn) {
	c.mu.Lock()
	if c.muting > 0 {
		c.muting--
		c.mute = append(c.mute, client)
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	defer client.Close()
	server, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	defer server.Close()
	drop := make(chan struct{}) // closed when the next answer is the one to lose
	go func() {
		defer client.Close()
		buffer := make([]byte, 64<<10)
		for {
			n, err := server.Read(buffer)
			if err != nil {
				return
			}
			select {
			case <-drop:
				return
			default:
			}
			if _, err := client.Write(buffer[:n]); err != nil {
				return
			}
		}
	}()
	buffer := make([]byte, 64<<10)
	for {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		c.mu.Lock()
		hit, answer := len(c.marker) > 0 && bytes.Contains(buffer[:n], c.marker), c.answer
		if hit {
			c.marker = nil
			c.cuts++
		}
		c.mu.Unlock()
		if hit && !answer {
			return
		}
		if hit {
			close(drop)
		}
		if _, err := server.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// A commit whose connection breaks is made once, whether it broke before the
// database had it or after: a task that was stored is not reported as refused,
// and nothing is stored twice.
func TestACommitWhoseAnswerIsLostIsMadeOnce(t *testing.T) {
	cut, address := newCutter(t, pgtest.URL(t))
	s := openedURL(t, address)
	if err := s.Commit(t.Context(), []berth.Change{newLife("warm-up", "here", nil)}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		id     string
		answer bool
	}{{"cut-before", false}, {"cut-after", true}} {
		cut.arm(c.id, c.answer)
		if err := s.Commit(t.Context(), []berth.Change{newLife(c.id, "here", nil)}); err != nil {
			t.Errorf("%s: %v", c.id, err)
		}
		if events, err := s.Events(t.Context(), c.id, 0, 10); err != nil || len(events) != 1 {
			t.Errorf("%s: events %+v, %v", c.id, events, err)
		}
	}
	if cut.cuts != 2 {
		t.Errorf("%d connections were cut", cut.cuts)
	}
}

func TestACommitOutlivesARestartOfTheDatabase(t *testing.T) {
	server := pgtest.New(t)
	s := openedURL(t, server.Database(t))
	if err := s.Commit(t.Context(), []berth.Change{newLife("a", "here", nil)}); err != nil {
		t.Fatal(err)
	}
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT} {
		server.Stop(signal)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if err := s.Commit(ctx, []berth.Change{newLife("b", "here", nil)}); err == nil {
			t.Fatal("stored in a database that is away")
		}
		cancel()
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		id := "after-" + signal.String()
		if err := s.Commit(t.Context(), []berth.Change{newLife(id, "here", nil)}); err != nil {
			t.Error(err)
		}
	}
}

func TestTextsThatPostgreSQLCannotKeepLoseNoEvent(t *testing.T) {
	s := openedURL(t, pgtest.URL(t))
	c := newLife("a", "here", nil)
	c.Events[0].Message = "a\x00b\xffc"
	if err := s.Commit(t.Context(), []berth.Change{c}); err != nil {
		t.Fatal(err)
	}
	if events, err := s.Events(t.Context(), "a", 0, 10); err != nil || len(events) != 1 || events[0].Message != "a\uFFFDb\uFFFDc" {
		t.Errorf("%+v, %v", events, err)
	}
}

func TestServersThatStartTogetherMakeTheTablesOnce(t *testing.T) {
	address := pgtest.URL(t)
	var wg sync.WaitGroup
	instances := make([]string, 4)
	for i := range instances {
		wg.Go(func() {
			s, err := OpenURL(context.Background(), address)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			instances[i] = s.Instance()
		})
	}
	wg.Wait()
	for _, instance := range instances {
		if instance != instances[0] || instance == "" {
			t.Errorf("instances %q", instances)
		}
	}
}

func TestADatabaseOfANewerVersionIsRefused(t *testing.T) {
	address := pgtest.URL(t)
	s := openedURL(t, address)
	if _, err := s.write.ExecContext(t.Context(), "UPDATE meta SET value = '99' WHERE key = 'schema'"); err != nil {
		t.Fatal(err)
	}
	_, err := OpenURL(t.Context(), address)
	if berth.CodeOf(err) != berth.CodeConflict || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("opened: %v", err)
	}
}

// What can be wrong with a database is told with a remedy, and without the password.
func TestADatabaseThatCannotBeUsedIsExplained(t *testing.T) {
	server := pgtest.Shared(t)
	server.Do(t, "postgres", "CREATE DATABASE explained", "DROP ROLE IF EXISTS guest", "CREATE ROLE guest LOGIN PASSWORD '"+pgtest.Password+"'")
	good := server.URL("berth", pgtest.Password, "explained")
	host := strings.Split(strings.Split(good, "@")[1], "/")[0]
	for _, c := range []struct {
		name, address string
		code          berth.ErrorCode
		says          string
	}{
		{"no such database", server.URL("berth", pgtest.Password, "nowhere"), berth.CodeNotFound, "createdb"},
		{"a wrong password", server.URL("berth", pgtest.Password+"x", "explained"), berth.CodeUnauthorized, "refuses the login"},
		{"no rights", server.URL("guest", pgtest.Password, "explained"), berth.CodeForbidden, "GRANT"},
		{"nobody there", strings.Replace(good, host, "127.0.0.1:1", 1), berth.CodeUnavailable, "can't be reached"},
		{"nobody answers there", strings.Replace(good, host, silent(t), 1) + "&connect_timeout=1", berth.CodeUnavailable, "can't be reached"},
		{"no such host", strings.Replace(good, host, "nowhere.invalid:5432", 1), berth.CodeUnavailable, "can't be reached"},
		{"no TLS there", strings.Replace(good, "sslmode=disable", "sslmode=require", 1), berth.CodeUnavailable, "TLS"},
		{"another kind", "mysql://berth:" + pgtest.Password + "@" + host + "/explained", berth.CodeInvalid, "postgres://"},
		{"a bad port", strings.Replace(good, host, "127.0.0.1:many", 1), berth.CodeInvalid, "can't be read"},
		{"a bad escape", "postgres://berth:" + pgtest.Password + "%zz@" + host + "/explained", berth.CodeInvalid, "can't be read"},
		{"a bad option", good + "&sslrootcert=/nowhere/" + "ca.pem&sslmode=verify-full", berth.CodeInvalid, "can't be read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := OpenURL(t.Context(), c.address)
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			if berth.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", berth.CodeOf(err), err)
			}
			if strings.Contains(err.Error(), pgtest.Password) {
				t.Errorf("the password is shown: %v", err)
			}
		})
	}
}

// silent is the address of a server that never says anything.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// A process that was stopped while it made a connection finds that its time ran
// out, though the database is there.
func TestAConnectionWhoseTimeRanOutIsTriedOnceMore(t *testing.T) {
	c, address := newCutter(t, pgtest.URL(t))
	c.mu.Lock()
	c.muting = 1
	c.mu.Unlock()
	s, err := OpenURL(t.Context(), address+"&connect_timeout=1")
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.mute) != 1 {
		t.Errorf("%d connections were not answered", len(c.mute))
	}
}

func TestQuestionMarksBecomeNumbers(t *testing.T) {
	for text, want := range map[string]string{
		"SELECT 1":                              "SELECT 1",
		"a = ? AND b IN (?,?)":                  "a = $1 AND b IN ($2,$3)",
		"a = '?' AND b = ? AND c = 'it''s ?' ?": "a = '?' AND b = $1 AND c = 'it''s ?' $2",
	} {
		if got := number(text); got != want {
			t.Errorf("%s became %s", text, got)
		}
	}
}
