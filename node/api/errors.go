package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// SchemaError is the schema of an [Error].
const SchemaError = "village.error/v1"

// Fail makes an error that carries an exit code and names the next command.
func Fail(code int, next, format string, args ...any) *Error {
	return &Error{Schema: SchemaError, Message: fmt.Sprintf(format, args...), Next: next, Code: code}
}

// AsError finds the Error in err, or makes one of it: code 130 for what was
// cancelled, 1 for anything else.
func AsError(err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.Canceled):
		return Fail(CodeInterrupted, "", "interrupted")
	default:
		return Fail(CodeFailed, "", "%v", err)
	}
}

// HTTPStatus is the status with which the daemon answers the error.
func (e *Error) HTTPStatus() int {
	switch e.Code {
	case CodeUsage:
		return http.StatusBadRequest
	case CodeDenied:
		return http.StatusForbidden
	default:
		return http.StatusUnprocessableEntity
	}
}

// Quote makes s one word of a shell command.
func Quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@%,=~", r)
	}
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
