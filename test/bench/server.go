package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/client"
)

// server is a process of `berth server` on this machine.
type server struct {
	binary, dir, address, token string
	process                     *exec.Cmd
	service                     berth.Service
	web                         *http.Client
	env                         []string
}

// newServer starts a server on an infra.yml, whose kubeconfigs are ./kubeconfig.
func newServer(binary, kubeconfig, infra string, env ...string) (*server, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	s := &server{binary: binary, env: append(os.Environ(), env...)}
	if s.dir, err = os.MkdirTemp("", "berth-bench-server-*"); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(s.dir, "infra.yml"), []byte(infra), 0o600); err != nil {
		return nil, err
	}
	if kubeconfig != "" {
		content, err := os.ReadFile(kubeconfig)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(s.dir, "kubeconfig"), content, 0o600); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.address = l.Addr().String()
	l.Close()
	if err := s.start(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// start starts the process, and returns once it answers.
func (s *server) start() error {
	s.process = exec.Command(s.binary, "server", "--listen", s.address)
	s.process.Dir, s.process.Stderr, s.process.Env = s.dir, os.Stderr, s.env
	if err := s.process.Start(); err != nil {
		return err
	}
	ca := filepath.Join(s.dir, ".berth", "ca.pem")
	deadline := time.Now().Add(30 * time.Second)
	for {
		conn, err := net.Dial("tcp", s.address)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the server did not start: %w", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if s.service != nil {
		return nil
	}
	create := exec.Command(s.binary, "server", "token", "create", "bench", "--role", "admin")
	create.Dir, create.Stderr, create.Env = s.dir, os.Stderr, s.env
	token, err := create.Output()
	if err != nil {
		return err
	}
	s.token = strings.TrimSpace(string(token))
	pem, err := os.ReadFile(ca)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	s.web = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
	s.service, err = client.Dial("https://"+s.address, s.token, client.WithCAFile(ca))
	return err
}

// kill ends the process at once.
func (s *server) kill() {
	_ = s.process.Process.Kill()
	_ = s.process.Wait()
	s.process = nil
}

func (s *server) close() {
	if s.service != nil {
		s.service.Close()
	}
	if s.process != nil {
		_ = s.process.Process.Signal(syscall.SIGTERM)
		_ = s.process.Wait()
	}
	os.RemoveAll(s.dir)
}

// figures are what a process says, and its kernel, of its memory, in bytes.
type figures struct{ resident, heap, stacks, goroutines, cpu float64 }

// memory reads what the server needs now: the least of a few readings, as some
// of what is resident is garbage.
func (s *server) memory(ctx context.Context) (figures, error) {
	var least figures
	for i := range 10 {
		f, err := s.figures(ctx)
		if err != nil {
			return f, err
		}
		if i == 0 || f.heap < least.heap {
			least.heap = f.heap
		}
		if i == 0 || f.resident < least.resident {
			least.resident = f.resident
		}
		least.stacks, least.goroutines, least.cpu = f.stacks, f.goroutines, f.cpu
		time.Sleep(time.Second)
	}
	return least, nil
}

// figures asks the server's /metrics.
func (s *server) figures(ctx context.Context) (figures, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+s.address+"/metrics", nil)
	if err != nil {
		return figures{}, err
	}
	request.Header.Set("Authorization", "Bearer "+s.token)
	response, err := s.web.Do(request)
	if err != nil {
		return figures{}, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return figures{}, fmt.Errorf("/metrics answers %s", response.Status)
	}
	var f figures
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		number, _ := strconv.ParseFloat(value, 64)
		switch name {
		case "process_resident_memory_bytes":
			f.resident = number
		case "go_memstats_heap_alloc_bytes":
			f.heap = number
		case "go_memstats_stack_inuse_bytes":
			f.stacks = number
		case "go_goroutines":
			f.goroutines = number
		case "process_cpu_seconds_total":
			f.cpu = number
		}
	}
	return f, nil
}
