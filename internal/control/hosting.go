package control

import (
	"context"
	"errors"
	"net/http"
	"os"
	"time"

	"github.com/berth-run/berth/internal/rpc"
)

// hosting is a data directory that this process is the host of: the Host, and
// the socket on which guests reach it.
type hosting struct {
	host   *Host
	lock   *os.File
	server *http.Server
}

// newHosting becomes the host of a data directory whose lock is held. The lock
// is the hosting's from then on, also when it fails.
func newHosting(ctx context.Context, c Config, lock *os.File) (*hosting, error) {
	listener, err := listen(c.DataDir)
	if err != nil {
		lock.Close()
		return nil, err
	}
	// From here on guests may connect; they are answered once the host is up.
	host, err := newHost(ctx, c)
	if err != nil {
		listener.Close()
		lock.Close()
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle(rpc.NewHandler(host.service(), rpc.HandlerOptions{}))
	mux.Handle(rpc.TunnelPath, rpc.NewTunnelHandler(host.service(), rpc.HandlerOptions{Ending: host.engine.Ending()}))
	mux.Handle("/v2/", host.packages)
	server := &http.Server{Handler: mux, Protocols: cleartext(), ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(listener) //nolint:errcheck // it ends when it is closed
	return &hosting{host: host, lock: lock, server: server}, nil
}

// cleartext is HTTP/2, and HTTP/1.1 for connections to clusters, which are
// upgraded, and for programs that know nothing else.
func cleartext() *http.Protocols {
	p := cleartextHTTP2()
	p.SetHTTP1(true)
	return p
}

func cleartextHTTP2() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

// leave finishes what is nearly done and lets everything go but the lock, which
// is let go last: who takes it finds everything written.
func (h *hosting) leave() error {
	h.host.engine.Drain() // guests are still served meanwhile
	return errors.Join(h.server.Close(), h.host.Close())
}

func (h *hosting) Close() error {
	return errors.Join(h.leave(), h.lock.Close())
}
