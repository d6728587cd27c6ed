/* What pong.h wants of raylib to compile: types, and drawing functions that draw nothing. Ours, not raylib's. */
#pragma once

typedef struct { unsigned char r, g, b, a; } Color;
typedef struct { float x, y; } Vector2;
typedef struct { float x, y, width, height; } Rectangle;
typedef struct { unsigned int id; } Texture2D;

#define WHITE (Color){255, 255, 255, 255}
#define KEY_ESCAPE 256

static inline void InitWindow(int width, int height, const char* title) {}
static inline void CloseWindow(void) {}
static inline void SetTargetFPS(int fps) {}
static inline int IsKeyDown(int key) { return 0; }
static inline void BeginDrawing(void) {}
static inline void EndDrawing(void) {}
static inline void ClearBackground(Color color) {}
static inline Texture2D LoadTexture(const char* file) { return (Texture2D){0}; }
static inline void DrawTexturePro(Texture2D t, Rectangle from, Rectangle to, Vector2 origin, float turn, Color c) {}
static inline void DrawRectangle(int x, int y, int width, int height, Color color) {}
static inline void DrawText(const char* text, int x, int y, int size, Color color) {}
static inline const char* TextFormat(const char* text, ...) { return text; }
static inline int MeasureText(const char* text, int size) { return 0; }
