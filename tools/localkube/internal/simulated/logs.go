// Package simulated stands in for the part of a kubelet that simulated nodes lack: it answers the API
// server's requests for containers' logs. Every container has said the same and has ended, so a log that
// is followed ends too, but in namespaces for containers that stay. It reads nothing and keeps nothing.
package simulated

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// Command is the verb by which localkube runs itself as the server.
const Command = "simulated-logs"

// staying begins the names of namespaces whose containers go on until somebody says otherwise (label
// localkube/stay): a log of theirs that is followed doesn't end.
const staying = "stay-"

// line is one line of a log.
type line struct {
	at   time.Time
	text string
}

// log is what every container has said. The time is in the past, whenever that is: a reader that goes
// on from a line's time must not get the line again.
var log = []line{{time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), "a simulated container"}}

// Files are the paths of the server's certificate and key and of the authority of those who may ask.
type Files struct{ Certificate, Key, Authority string }

// Serve answers until the context ends.
func Serve(ctx context.Context, address string, files Files) error {
	authority, err := os.ReadFile(files.Authority)
	if err != nil {
		return fmt.Errorf("serve simulated logs: %w", err)
	}
	callers := x509.NewCertPool()
	callers.AppendCertsFromPEM(authority)
	server := &http.Server{
		Addr: address, Handler: handler(), ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{ClientCAs: callers, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12},
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	err = server.ListenAndServeTLS(files.Certificate, files.Key)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve simulated logs on %s: %w", address, err)
}

// handler knows the one path of the kubelet's that is asked for.
func handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		text, err := render(log, r.URL.Query(), time.Now())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, text)
		if r.URL.Query().Get("follow") == "true" && strings.HasPrefix(r.PathValue("namespace"), staying) {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	})
	return mux
}

// render gives the lines that the options of a PodLogOptions ask for.
func render(lines []line, options url.Values, now time.Time) (string, error) {
	since, err := sinceTime(options, now)
	if err != nil {
		return "", err
	}
	tail, err := number(options, "tailLines", len(lines))
	if err != nil {
		return "", err
	}
	text := ""
	for _, l := range lines[max(0, len(lines)-tail):] {
		if l.at.Before(since) {
			continue
		}
		if options.Get("timestamps") == "true" {
			text += l.at.Format(time.RFC3339Nano) + " "
		}
		text += l.text + "\n"
	}
	limit, err := number(options, "limitBytes", len(text))
	if err != nil {
		return "", err
	}
	return text[:min(limit, len(text))], nil
}

func sinceTime(options url.Values, now time.Time) (time.Time, error) {
	if value := options.Get("sinceTime"); value != "" {
		since, err := time.Parse(time.RFC3339, value)
		if err != nil {
			return since, fmt.Errorf("read sinceTime: %w", err)
		}
		return since, nil
	}
	if options.Get("sinceSeconds") == "" {
		return time.Time{}, nil
	}
	seconds, err := number(options, "sinceSeconds", 0)
	return now.Add(-time.Duration(seconds) * time.Second), err
}

func number(options url.Values, name string, otherwise int) (int, error) {
	value := options.Get(name)
	if value == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("read %s: %q is no number of them", name, value)
	}
	return n, nil
}
