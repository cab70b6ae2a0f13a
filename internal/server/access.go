package server

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/berth-run/berth"
)

// TokenOf returns the token that a request shows: as a bearer, or as the
// password of any user, which is how registries are logged in to.
func TokenOf(r *http.Request) string {
	header := r.Header.Get("Authorization")
	if scheme, token, ok := strings.Cut(header, " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	_, password, _ := r.BasicAuth()
	return password
}

// forReaders lets callers through who may see the whole of the control plane's
// figures: any role, for all infrastructures.
func (s *Server) forReaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, err := s.config.Authenticate(r)
		if err != nil {
			w.Header().Set("WWW-Authenticate", `Bearer realm="berth"`)
			say(w, status(err), err.Error())
			return
		}
		if caller, ok := berth.CallerFrom(ctx); !ok || !caller.Role.Includes(berth.RoleRead) || len(caller.Infrastructures) > 0 {
			say(w, http.StatusForbidden, "the metrics are of all infrastructures, and this token is restricted to some")
			return
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// forPackages lets callers through to the registry: read pulls, write pushes,
// admin deletes. Errors have the form of the OCI distribution specification.
func (s *Server) forPackages(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.config.Admits != nil && s.config.Admits(r) {
			next.ServeHTTP(w, r)
			return
		}
		ctx, err := s.config.Authenticate(r)
		if err != nil {
			code := "UNAUTHORIZED"
			if berth.CodeOf(err) == berth.CodeUnauthorized {
				w.Header().Set("WWW-Authenticate", `Basic realm="berth"`)
			} else {
				code = "UNKNOWN"
			}
			refuse(w, status(err), code, err.Error())
			return
		}
		needed := roleFor(r.Method)
		if caller, ok := berth.CallerFrom(ctx); !ok || !caller.Role.Includes(needed) {
			refuse(w, http.StatusForbidden, "DENIED", "the token of "+caller.Name+" has role "+string(caller.Role)+"; this takes role "+string(needed))
			return
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func roleFor(method string) berth.Role {
	switch method {
	case http.MethodGet, http.MethodHead:
		return berth.RoleRead
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		return berth.RoleWrite
	}
	return berth.RoleAdmin
}

func status(err error) int {
	switch berth.CodeOf(err) {
	case berth.CodeUnauthorized:
		return http.StatusUnauthorized
	case berth.CodeForbidden:
		return http.StatusForbidden
	}
	return http.StatusServiceUnavailable
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	type problem struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	body, _ := json.Marshal(map[string][]problem{"errors": {{code, message}}}) // strings always can be
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
