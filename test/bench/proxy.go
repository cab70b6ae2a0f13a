package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Where the measurement is, in a network of its own: nothing of this leaves it.
const (
	benchHost  = "10.99.0.1" // of this network: what goes there stays on loopback
	benchOther = "10.99.0.2" // of nobody: only the redirection makes a connection there
	benchUser  = 64646       // whom the rules let reach the proxy
)

// redirected measures what the sidecar of proxy_address costs: the throughput
// of one connection that is redirected to it and goes on by SOCKS5, against one
// made directly, on the same loopback, in turn. What is at the other end is the
// same program in both cases: as a proxy it serves the connection itself, so
// that no proxy is measured.
func redirected(berthlet string, rounds int, size int64) error {
	if os.Getenv("BERTH_BENCH_NETWORK") == "" {
		self := exec.Command("/proc/self/exe", os.Args[1:]...)
		self.Env = append(os.Environ(), "BERTH_BENCH_NETWORK=own")
		self.Stdout, self.Stderr = os.Stdout, os.Stderr
		self.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		return self.Run()
	}
	for _, words := range []string{"link set lo up", "link add eth0 type bridge", "address add " + benchHost + "/24 dev eth0", "link set eth0 up"} {
		if out, err := exec.Command("ip", strings.Fields(words)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", words, err, out)
		}
	}
	direct, err := serveBytes(benchHost+":0", false)
	if err != nil {
		return err
	}
	proxy, err := serveBytes(benchHost+":0", true)
	if err != nil {
		return err
	}
	stop, err := sidecar(berthlet, proxy)
	if err != nil {
		return err
	}
	defer stop()
	for _, way := range []string{"sent", "received"} {
		var ratios []float64
		for range rounds {
			one, err := transfer(direct, way, size)
			if err != nil {
				return err
			}
			other, err := transfer(benchOther+":80", way, size)
			if err != nil {
				return err
			}
			ratios = append(ratios, other/one)
			fmt.Printf("%-8s  direct %5.0f MB/s  redirected %5.0f MB/s  ratio %.2f\n", way, one/1e6, other/1e6, other/one)
		}
		fmt.Printf("redirected throughput ratio, %s: %.2f\n", way, median(ratios))
	}
	return nil
}

// sidecar makes the rules and starts what they redirect to, as in a pod.
func sidecar(berthlet, proxy string) (stop func(), err error) {
	dir, err := os.MkdirTemp("", "berth-bench-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o777); err != nil { //nolint:gosec // of another user's process
		return nil, err
	}
	order, err := json.Marshal(map[string]string{"protocol": "socks5", "address": proxy, "as": "bench", "dir": dir})
	if err != nil {
		return nil, err
	}
	program := filepath.Join(dir, "berthlet") // where that user can run it
	data, err := os.ReadFile(berthlet)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(program, data, 0o755); err != nil { //nolint:gosec // a program
		return nil, err
	}
	command := func(what string) *exec.Cmd {
		cmd := exec.Command(program, "proxy", what)
		cmd.Env = []string{"BERTH_PROXY=" + string(order)}
		cmd.Stderr = os.Stderr
		return cmd
	}
	if err := command("rules").Run(); err != nil {
		return nil, err
	}
	serve := command("serve")
	serve.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: benchUser, Gid: benchUser}}
	if err := serve.Start(); err != nil {
		return nil, err
	}
	stop = func() {
		_ = serve.Process.Signal(syscall.SIGTERM)
		_ = serve.Wait()
		fmt.Printf("the sidecar used %s user and %s system time\n", serve.ProcessState.UserTime(), serve.ProcessState.SystemTime())
		os.RemoveAll(dir)
	}
	if err := command("ready").Run(); err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}

// serveBytes takes in bytes, or gives them, as the first byte of a connection
// says. A proxy does so with whatever it is asked to connect to.
func serveBytes(address string, proxy bool) (string, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return "", err
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if proxy && acceptSOCKS(conn) != nil {
					return
				}
				var way [1]byte
				if _, err := io.ReadFull(conn, way[:]); err != nil {
					return
				}
				buffer := make([]byte, 1<<20)
				if way[0] == 's' {
					for err == nil {
						_, err = conn.Read(buffer)
					}
					return
				}
				for err == nil {
					_, err = conn.Write(buffer)
				}
			}()
		}
	}()
	return listener.Addr().String(), nil
}

// acceptSOCKS answers a client of SOCKS5 that connects to an IPv4 address.
func acceptSOCKS(conn net.Conn) error {
	var greeting [4]byte // two methods, as the sidecar offers them
	var request [10]byte
	_, err := io.ReadFull(conn, greeting[:])
	if err == nil {
		_, err = conn.Write([]byte{5, 0})
	}
	if err == nil {
		_, err = io.ReadFull(conn, request[:])
	}
	if err == nil {
		_, err = conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	}
	return err
}

// transfer sends or receives so many bytes and returns bytes per second.
func transfer(address, way string, size int64) (float64, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(way[:1])); err != nil {
		return 0, err
	}
	buffer := make([]byte, 1<<20)
	began := time.Now()
	for done := int64(0); done < size; {
		var n int
		if way == "sent" {
			n, err = conn.Write(buffer)
		} else {
			n, err = conn.Read(buffer)
		}
		if err != nil {
			return 0, errors.Join(errors.New("the connection ended early"), err)
		}
		done += int64(n)
	}
	return float64(size) / time.Since(began).Seconds(), nil
}
