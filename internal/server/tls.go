package server

import (
	"crypto/tls"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/berth-run/berth"
)

// checkInterval is how often a certificate is looked after, at most: when a
// client connects.
const checkInterval = time.Minute

// certificates gives handshakes the certificate of the moment.
type certificates struct {
	log  *slog.Logger
	read func(now time.Time, current *tls.Certificate) (*tls.Certificate, error)

	mu      sync.Mutex
	current *tls.Certificate
	checked time.Time
}

// GeneratedTLS serves with certificates of a CA of the directory, which are
// renewed in time.
func GeneratedTLS(a *Authority, dir string, names []string, log *slog.Logger) (*tls.Config, error) {
	if warning := a.expiry(time.Now()); warning != "" {
		log.Warn(warning)
	}
	return newTLS(log, func(now time.Time, current *tls.Certificate) (*tls.Certificate, error) {
		if current != nil && a.stillGood(current.Leaf, names, now) {
			return current, nil
		}
		return a.issue(dir, names, now)
	})
}

// FilesTLS serves with a certificate and key of files, which are read again
// when they change.
func FilesTLS(certificate, key string, log *slog.Logger) (*tls.Config, error) {
	var read time.Time
	return newTLS(log, func(_ time.Time, current *tls.Certificate) (*tls.Certificate, error) {
		changed := latest(certificate, key)
		if current != nil && changed.Equal(read) {
			return current, nil
		}
		pair, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			return nil, berth.Errorf(berth.CodeInvalid, "the certificate %s and the key %s can't be used: %w", certificate, key, err)
		}
		read = changed
		return &pair, nil
	})
}

func latest(paths ...string) time.Time {
	var last time.Time
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
}

func newTLS(log *slog.Logger, read func(time.Time, *tls.Certificate) (*tls.Certificate, error)) (*tls.Config, error) {
	c := &certificates{log: log, read: read, checked: time.Now()}
	var err error
	if c.current, err = read(c.checked, nil); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get}, nil
}

func (c *certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Sub(c.checked) < checkInterval {
		return c.current, nil
	}
	c.checked = now
	renewed, err := c.read(now, c.current)
	if err != nil {
		c.log.Error("the certificate can't be renewed; the one before stays in use", "error", err)
		return c.current, nil
	}
	c.current = renewed
	return renewed, nil
}
