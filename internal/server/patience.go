package server

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// patient gives up on clients that neither send what they announced nor take
// what they asked for: each read and each write of a request has a while to
// get on, so a long transfer that moves is never cut and one that stalls is.
func patient(next http.Handler, stall time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = &patientBody{r.Body, control, stall}
		}
		next.ServeHTTP(&patientWriter{w, control, stall}, r)
	})
}

type patientBody struct {
	io.ReadCloser
	control *http.ResponseController
	stall   time.Duration
}

func (b *patientBody) Read(p []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(b.stall)) // a connection that has none goes on without
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		// The connection is read further to see whether the client is still
		// there, which may take as long as the answer does.
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

type patientWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	stall   time.Duration
}

func (w *patientWriter) Write(p []byte) (int, error) {
	_ = w.control.SetWriteDeadline(time.Now().Add(w.stall))
	return w.ResponseWriter.Write(p)
}

func (w *patientWriter) Flush() {
	_ = w.control.SetWriteDeadline(time.Now().Add(w.stall))
	_ = w.control.Flush()
}

// Unwrap lets a http.ResponseController reach what is below.
func (w *patientWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
